// The kernels for AVX-512 with products of bfloat16 pairs: those of kernels_avx512.cpp but for attention in bfloat16.
#define UMBEL_AVX512
#define UMBEL_KERNELS avx512_bf16_kernels
#define UMBEL_NAME "avx512_bf16"
#define UMBEL_ATTEND attend_any
#define UMBEL_ATTEND_SCRATCH attend_any_scratch
#include "attend.inc"
#include "attend_bf16.inc"
#include "rows.inc"
#include "draw.inc"
#include "chain.inc"
#include "summaries.inc"
#include "table.inc"
