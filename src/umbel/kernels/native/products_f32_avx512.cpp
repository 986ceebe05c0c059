// Products in float32 for AVX-512.
#define UMBEL_AVX512
#define UMBEL_PRODUCTS float32_products_avx512
#include "products_wide.inc"
