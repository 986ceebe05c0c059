// Products in float32 for AVX2.
#define UMBEL_AVX2
#define UMBEL_PRODUCTS float32_products_avx2
#include "products_wide.inc"
