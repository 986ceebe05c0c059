// Products of bfloat16 that is widened to float32, for AVX-512.
#define UMBEL_AVX512
#define UMBEL_NARROW
#define UMBEL_PRODUCTS wide_bfloat16_products_avx512
#include "products_wide.inc"
