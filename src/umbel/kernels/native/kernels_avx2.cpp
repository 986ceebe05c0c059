// The kernels for AVX2 with FMA.
#define UMBEL_AVX2
#define UMBEL_KERNELS avx2_kernels
#define UMBEL_NAME "avx2"
#include "attend.inc"
#include "rows.inc"
#include "draw.inc"
#include "chain.inc"
#include "summaries.inc"
#include "table.inc"
