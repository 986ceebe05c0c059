// Products in int8 for any processor.
#define UMBEL_PRODUCTS int8_products_generic
#include "products_int8.inc"
