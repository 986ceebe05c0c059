// Products of many int8 rows by the matrix unit, with int8 weights or nibbles widened for all rows at once. Sums are exact, so
// that these are the bits of AVX512_VNNI, which has the rest: few rows, and what fills no whole tiles.
#define UMBEL_AVX512
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "amx.h"
#include "sums.inc"

namespace umbel {
namespace {

constexpr int64_t kManyRows = 8, kManyRowsInt4 = 16;  // from which on tiles are faster

UMBEL_TILE_PRODUCTS(Int8Tiles, _tile_dpbusd);  // rows are unsigned, weights signed
UMBEL_TILE_PRODUCTS(Int4Tiles, _tile_dpbsud);  // rows are signed, weights unsigned

UMBEL_INLINE __m512i whole(const int32_t* p) { return _mm512_loadu_si512(p); }

void multiply_int8(const Product& p, int64_t panel, const uint32_t* next, int64_t begin, int64_t end) {
  if (end - begin < kManyRows || p.dwords % kTileRows != 0)
    return int8_products_vnni().multiply(p, panel, next, begin, end);
  const uint32_t* weights = p.weights + panel * p.dwords * kPanel;
  alignas(64) int32_t sums[kBlockRows][kPanel];
  const int64_t row_bytes = p.dwords * 4;
  each_block(begin, end, [&](int64_t row, int64_t n) {
    add_tiles<Int8Tiles>(p.x + row * row_bytes, row_bytes, n, weights, p.dwords, sums, next);
    for (int64_t i = 0; i < n; i++) {
      Vec v[4];
      for (int j = 0; j < 4; j++) {
        const int64_t column = panel * kPanel + 16 * j;
        const __m512i sum = _mm512_add_epi32(whole(sums[i] + 16 * j), whole(p.correction + column));
        v[j] = mul(_mm512_cvtepi32_ps(sum), mul(set1(p.row_scale[row + i]), load(p.column_scale + column)));
      }
      store_sums(p, panel, row + i, v);
    }
  });
}

// Memory of a thread for one panel with its nibbles as bytes.
uint32_t* widened_panel(int64_t dwords) {
  struct Free {
    void operator()(uint32_t* p) const { std::free(p); }
  };
  static thread_local std::unique_ptr<uint32_t, Free> memory;
  static thread_local int64_t size = 0;
  if (size < dwords * kPanel) {
    memory.reset(static_cast<uint32_t*>(std::aligned_alloc(64, sizeof(uint32_t) * dwords * kPanel)));
    size = memory == nullptr ? 0 : dwords * kPanel;
  }
  return memory.get();
}

void widen(const uint32_t* from, int64_t groups, int64_t octets, uint32_t* to) {
  const __m512i low = _mm512_set1_epi8(15);
  for (int64_t g = 0; g < groups; g++) {
    from += kPanel;
    for (int64_t o = 0; o < octets; o++, from += kPanel, to += 2 * kPanel)
      for (int j = 0; j < kPanel; j += 16) {
        const __m512i pairs = _mm512_loadu_si512(from + j);
        _mm512_store_si512(to + j, _mm512_and_si512(pairs, low));
        _mm512_store_si512(to + kPanel + j, _mm512_and_si512(_mm512_srli_epi16(pairs, 4), low));
      }
  }
}

// total += (sum - zero * all) * (scale * row scale), as in products_int4.inc
UMBEL_INLINE void add_group(float* total, const int32_t* sums, const uint32_t* head, int32_t all, float row_scale) {
  const __m512i fifteen = _mm512_set1_epi32(15), of_row = _mm512_set1_epi32(all);
  for (int j = 0; j < kPanel; j += 16) {
    const __m512i bits = _mm512_loadu_si512(head + j);
    const __m512i sum = _mm512_sub_epi32(whole(sums + j), _mm512_madd_epi16(_mm512_and_si512(bits, fifteen), of_row));
    const Vec scale = mul(_mm512_castsi512_ps(_mm512_andnot_si512(fifteen, bits)), set1(row_scale));
    store(total + j, add(load(total + j), mul(_mm512_cvtepi32_ps(sum), scale)));
  }
}

void multiply_int4(const Product& p, int64_t panel, const uint32_t* next, int64_t begin, int64_t end) {
  const int64_t octets = p.group / 8, groups = p.dwords / (octets + 1), stride = groups * p.group;
  uint32_t* wide = end - begin < kManyRowsInt4 || p.group % 64 != 0 ? nullptr : widened_panel(stride / 4);
  if (wide == nullptr) return int4_products_vnni().multiply(p, panel, next, begin, end);
  const uint32_t* heads = p.weights + panel * p.dwords * kPanel;
  widen(heads, groups, octets, wide);
  alignas(64) int32_t sums[kBlockRows][kPanel];
  alignas(64) float total[kBlockRows][kPanel];
  each_block(begin, end, [&](int64_t row, int64_t n) {
    std::memset(total, 0, sizeof total);
    for (int64_t g = 0; g < groups; g++) {
      const uint32_t* weights = wide + g * p.group / 4 * kPanel;
      add_tiles<Int4Tiles>(p.x + row * stride + g * p.group, stride, n, weights, p.group / 4, sums, nullptr);
      for (int64_t i = 0; i < n; i++) {
        const int64_t at = (row + i) * groups + g;
        add_group(total[i], sums[i], heads + g * (octets + 1) * kPanel, p.row_sum[at], p.row_scale[at]);
      }
    }
    for (int64_t i = 0; i < n; i++) {
      Vec v[4];
      for (int j = 0; j < 4; j++) v[j] = load(total[i] + 16 * j);
      store_sums(p, panel, row + i, v);
    }
  });
}

bool may_use_tiles() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("amx-tile") || !__builtin_cpu_supports("amx-int8") ||
      !__builtin_cpu_supports("amx-bf16") || !__builtin_cpu_supports("avx512vnni"))
    return false;
  constexpr long kAskForState = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
  return syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
}

}  // namespace

bool has_amx() {
  static const bool found = may_use_tiles();
  return found;
}

const Products& int8_products_amx() {
  static const Products found = {multiply_int8, int8_products_vnni().quantise};
  return found;
}

const Products& int4_products_amx() {
  static const Products found = {multiply_int4, int4_products_vnni().quantise};
  return found;
}
}  // namespace umbel
