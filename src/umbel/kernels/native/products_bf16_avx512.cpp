// Products of bfloat16 rows and weights, summed in float32 by AVX512_BF16.
#define UMBEL_AVX512
#include <immintrin.h>

#include "products.h"

namespace umbel {
namespace {

using Sum = __m512;

inline __attribute__((always_inline)) Sum dot(Sum sum, __m512i x, __m512i w) {
  return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w);
}

inline __attribute__((always_inline)) __m512 finish(const Product&, int64_t, int64_t, Sum sum) { return sum; }

}  // namespace
}  // namespace umbel

#include "products.inc"

namespace umbel {
const Products& bfloat16_products_avx512() {
  static constexpr Products found = {multiply, nullptr};
  return found;
}
}  // namespace umbel
