// Products of bfloat16 that is widened to float32, for AVX2.
#define UMBEL_AVX2
#define UMBEL_NARROW
#define UMBEL_PRODUCTS wide_bfloat16_products_avx2
#include "products_wide.inc"
