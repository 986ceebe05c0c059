// Products of int8 rows with int4 weights by AVX512_VNNI, with the bits of products_int4.inc. Nibbles are widened in
// registers, by tiles of up to six rows and 64 columns.
#define UMBEL_AVX512
#include <cstring>

#include "sums.inc"

namespace umbel {
namespace {

constexpr int kRows = 6;

// Not __m512i: arrays of that are kept in memory, as it may alias anything.
typedef int32_t Sum __attribute__((vector_size(64)));

UMBEL_INLINE Sum dot(Sum sum, __m512i w, __m512i x) {
  return reinterpret_cast<Sum>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), w, x));
}

UMBEL_INLINE __m512i four_of(const uint8_t* x) {
  int32_t four;
  std::memcpy(&four, x, 4);
  return _mm512_set1_epi32(four);
}

// The sums of one group with which columns begin: minus the zero times the sum of the row, both of 16 bits.
UMBEL_INLINE Sum first_sum(__m512i head, int32_t all) {
  const __m512i zero = _mm512_and_si512(head, _mm512_set1_epi32(15));
  return reinterpret_cast<Sum>(_mm512_madd_epi16(zero, _mm512_set1_epi32(-all)));
}

// Sums of a group as they are added to what the groups before it gave.
UMBEL_INLINE Vec scaled(Sum sum, __m512i head, float row_scale) {
  const Vec scale = _mm512_castsi512_ps(_mm512_andnot_si512(_mm512_set1_epi32(15), head));
  return mul(_mm512_cvtepi32_ps(reinterpret_cast<__m512i>(sum)), mul(scale, set1(row_scale)));
}

// `kAhead`: cache lines of the panel at `next` to bring closer with each step.
template <int kTile, int kAhead>
void tile(const Product& p, int64_t panel, int64_t row, const char* next) {
  const int64_t octets = p.group / 8, groups = p.dwords / (octets + 1), stride = groups * p.group;
  const uint32_t* weights = p.weights + panel * p.dwords * kPanel;
  const uint8_t* x = p.x + row * stride;
  const float* scale = p.row_scale + row * groups;
  const int32_t* all = p.row_sum + row * groups;
  const __m512i low = _mm512_set1_epi8(15);
  alignas(64) float total[kTile][kPanel];
  std::memset(total, 0, sizeof total);
  for (int64_t g = 0; g < groups; g++) {
    const uint32_t* head = weights;
    Sum sums[kTile][4];  // in registers as long as every loop over it is unrolled
#pragma GCC unroll 6
    for (int i = 0; i < kTile; i++)
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) sums[i][j] = first_sum(_mm512_loadu_si512(head + 16 * j), all[i * groups + g]);
    weights += kPanel;
    for (int line = 0; line < kAhead; line++, next += 64) _mm_prefetch(next, _MM_HINT_T1);
    for (int64_t o = 0; o < octets; o++, weights += kPanel, x += 8) {
      if (kAhead == kOwn) bring_closer<kPanel>(weights);
      for (int line = 0; line < kAhead; line++, next += 64) _mm_prefetch(next, _MM_HINT_T1);
      __m512i w[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) w[j] = _mm512_and_si512(_mm512_loadu_si512(weights + 16 * j), low);
#pragma GCC unroll 6
      for (int i = 0; i < kTile; i++) {
        const __m512i each = four_of(x + i * stride);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) sums[i][j] = dot(sums[i][j], w[j], each);
      }
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) w[j] = _mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(weights + 16 * j), 4), low);
#pragma GCC unroll 6
      for (int i = 0; i < kTile; i++) {
        const __m512i each = four_of(x + i * stride + 4);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) sums[i][j] = dot(sums[i][j], w[j], each);
      }
    }
#pragma GCC unroll 6
    for (int i = 0; i < kTile; i++)
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) {
        float* to = total[i] + 16 * j;
        store(to, add(load(to), scaled(sums[i][j], _mm512_loadu_si512(head + 16 * j), scale[i * groups + g])));
      }
  }
  for (int i = 0; i < kTile; i++) {
    Vec v[4];
    for (int j = 0; j < 4; j++) v[j] = load(total[i] + 16 * j);
    store_sums(p, panel, row + i, v);
  }
}

}  // namespace
}  // namespace umbel

#include "tiles.inc"
#include "quantise.inc"

namespace umbel {
const Products& int4_products_vnni() {
  static constexpr Products found = {multiply, quantise};
  return found;
}
}  // namespace umbel
