// The kernels for any processor: SSE2 on x86-64, NEON on ARM.
#define UMBEL_KERNELS generic_kernels
#define UMBEL_NAME "generic"
#include "attend.inc"
#include "rows.inc"
#include "draw.inc"
#include "chain.inc"
#include "summaries.inc"
#include "table.inc"
