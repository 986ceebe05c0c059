// Products of bfloat16 rows and weights by the matrix unit, for any number of rows: it adds in another order than AVX512_BF16.
#define UMBEL_AVX512
#include <cstring>

#include "amx.h"
#include "sums.inc"

namespace umbel {
namespace {

UMBEL_TILE_PRODUCTS(Bfloat16Tiles, _tile_dpbf16ps);

void multiply(const Product& p, int64_t panel, const uint32_t* next, int64_t begin, int64_t end) {
  const uint32_t* weights = p.weights + panel * p.dwords * kPanel;
  alignas(64) float sums[kBlockRows][kPanel];
  const int64_t whole = p.dwords / kTileRows * kTileRows, row_bytes = p.x_stride * 4;
  each_block(begin, end, [&](int64_t row, int64_t n) {
    add_tiles<Bfloat16Tiles>(p.x + row * row_bytes, row_bytes, n, weights, whole, sums, next);
    for (int64_t i = 0; i < n; i++) {
      Vec v[4];
      for (int j = 0; j < 4; j++) v[j] = load(sums[i] + 16 * j);
      for (int64_t k = whole; k < p.dwords; k++) {  // what fills no tile
        int32_t pair;
        std::memcpy(&pair, p.x + (row + i) * row_bytes + k * 4, 4);
        const auto each = (__m512bh)_mm512_set1_epi32(pair);
        const uint32_t* w = weights + k * kPanel;
        for (int j = 0; j < 4; j++) v[j] = _mm512_dpbf16_ps(v[j], each, (__m512bh)_mm512_loadu_si512(w + 16 * j));
      }
      store_sums(p, panel, row + i, v);
    }
  });
}

}  // namespace

const Products& bfloat16_products_amx() {
  static constexpr Products found = {multiply, nullptr};
  return found;
}
}  // namespace umbel
