// Products with int4 weights for AVX2.
#define UMBEL_AVX2
#define UMBEL_PRODUCTS int4_products_avx2
#include "products_int4.inc"
