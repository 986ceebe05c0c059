// Products with int4 weights for any processor.
#define UMBEL_PRODUCTS int4_products_generic
#include "products_int4.inc"
