// The kernels for AVX-512 (F, BW, DQ, VL).
#define UMBEL_AVX512
#define UMBEL_KERNELS avx512_kernels
#define UMBEL_NAME "avx512"
#include "attend.inc"
#include "rows.inc"
#include "draw.inc"
#include "chain.inc"
#include "summaries.inc"
#include "table.inc"
