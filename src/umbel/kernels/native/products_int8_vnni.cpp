// Products of int8 rows and weights, summed exactly in int32 by AVX512_VNNI.
#define UMBEL_AVX512
#include "products.h"

#include "vec.h"

namespace umbel {
namespace {

// Not __m512i: arrays of that are kept in memory, as it may alias anything.
typedef int32_t Sum __attribute__((vector_size(64)));

UMBEL_INLINE Sum dot(Sum sum, __m512i x, __m512i w) { return reinterpret_cast<Sum>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), x, w)); }

UMBEL_INLINE Vec finish(const Product& p, int64_t column, int64_t row, Sum sum) {
  const __m512i whole = _mm512_add_epi32(reinterpret_cast<__m512i>(sum), _mm512_loadu_si512(p.correction + column));
  return mul(_mm512_cvtepi32_ps(whole), mul(set1(p.row_scale[row]), load(p.column_scale + column)));
}

}  // namespace
}  // namespace umbel

#include "products.inc"
#include "quantise.inc"

namespace umbel {
const Products& int8_products_vnni() {
  static constexpr Products found = {multiply, quantise};
  return found;
}
}  // namespace umbel
