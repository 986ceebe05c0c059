// Products in int8 for AVX2.
#define UMBEL_AVX2
#define UMBEL_PRODUCTS int8_products_avx2
#include "products_int8.inc"
