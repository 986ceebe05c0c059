// The matrix unit (AMX): sums of blocks of rows with one panel, in tiles of up to 16 rows of 64 bytes.
//
// Panels are in the order that tiles of weights want. Tiles 0 to 3 hold sums: of up to 16 rows with all columns of a panel, or
// of twice 16 rows with half of them. Each sum is over the inputs in their order, whatever the block that its row falls into.
#pragma once

#include <immintrin.h>

#include "products.h"

namespace umbel {
namespace {

#define UMBEL_AMX inline __attribute__((always_inline))

constexpr int kTileRows = 16;                // of the inputs; and dwords of the weights
constexpr int kBlockRows = 2 * kTileRows;
constexpr int64_t kPanelBytes = kPanel * 4;  // between two dwords of a column

struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// The tiles of this thread for a block of so many rows; given back at the end.
class Tiles {
 public:
  explicit Tiles(int64_t n) {
    alignas(64) TileConfig config;
    const int64_t a = n < kTileRows ? n : kTileRows, b = n - a;
    const int64_t few[8] = {a, a, a, a, a, kTileRows, kTileRows, kTileRows};
    const int64_t many[8] = {a, a, b, b, a, b, kTileRows, kTileRows};
    for (int i = 0; i < 8; i++)
      config.row_bytes[i] = 64, config.rows[i] = static_cast<uint8_t>((b > 0 ? many : few)[i]);
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
};

// The products of tiles by one instruction, which takes no variables.
#define UMBEL_TILE_PRODUCTS(Name, dot) \
  struct Name {                        \
    static UMBEL_AMX void first() {    \
      dot(0, 4, 6);                    \
      dot(1, 4, 7);                    \
    }                                  \
    static UMBEL_AMX void second() {   \
      dot(2, 5, 6);                    \
      dot(3, 5, 7);                    \
    }                                  \
    static UMBEL_AMX void three() {    \
      dot(0, 4, 5);                    \
      dot(1, 4, 6);                    \
      dot(2, 4, 7);                    \
    }                                  \
    static UMBEL_AMX void last() {     \
      dot(3, 4, 5);                    \
    }                                  \
  }

UMBEL_AMX void clear_tiles() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// Up to 16 rows, of which memory is slower than arithmetic: a panel that may be wanted soon is asked for meanwhile.
template <class Dot>
UMBEL_AMX void add_few(const uint8_t* x, int64_t row_bytes, const uint32_t* weights, int64_t count, void* sums,
                       const uint32_t* next) {
  clear_tiles();
  for (int64_t k = 0; k < count; k += kTileRows, weights += kTileRows * kPanel) {
    _tile_loadd(4, x + k * 4, row_bytes);
    _tile_loadd(5, weights, kPanelBytes);
    _tile_loadd(6, weights + 16, kPanelBytes);
    _tile_loadd(7, weights + 32, kPanelBytes);
    Dot::three();
    _tile_loadd(5, weights + 48, kPanelBytes);
    Dot::last();
    if (next == nullptr) continue;
    const char* ahead = reinterpret_cast<const char*>(next + k * kPanel);
    for (int line = 0; line < 4 * kTileRows; line++) _mm_prefetch(ahead + 64 * line, _MM_HINT_T1);
  }
  char* to = static_cast<char*>(sums);
  _tile_stored(0, to, kPanelBytes);
  _tile_stored(1, to + 64, kPanelBytes);
  _tile_stored(2, to + 128, kPanelBytes);
  _tile_stored(3, to + 192, kPanelBytes);
}

// More rows, with half of the columns.
template <class Dot>
UMBEL_AMX void add_many(const uint8_t* x, int64_t row_bytes, const uint32_t* weights, int64_t count, void* sums) {
  clear_tiles();
  for (int64_t k = 0; k < count; k += kTileRows, weights += kTileRows * kPanel) {
    _tile_loadd(4, x + k * 4, row_bytes);
    _tile_loadd(6, weights, kPanelBytes);
    _tile_loadd(7, weights + 16, kPanelBytes);
    Dot::first();
    _tile_loadd(5, x + k * 4 + kTileRows * row_bytes, row_bytes);
    Dot::second();
  }
  char* to = static_cast<char*>(sums);
  _tile_stored(0, to, kPanelBytes);
  _tile_stored(1, to + 64, kPanelBytes);
  to += kTileRows * kPanelBytes;
  _tile_stored(2, to, kPanelBytes);
  _tile_stored(3, to + 64, kPanelBytes);
}

// Sums ([rows][64]) of n rows, at most 32, with a panel over the dwords [0, count), a multiple of 16.
template <class Dot>
UMBEL_AMX void add_tiles(const uint8_t* x, int64_t row_bytes, int64_t n, const uint32_t* weights, int64_t count,
                         void* sums, const uint32_t* next) {
  if (n <= kTileRows) return add_few<Dot>(x, row_bytes, weights, count, sums, next);
  add_many<Dot>(x, row_bytes, weights, count, sums);
  add_many<Dot>(x, row_bytes, weights + 32, count, static_cast<char*>(sums) + 128);
}

// Calls act(row, rows) for blocks of the rows [begin, end), with tiles for them.
template <class Act>
UMBEL_AMX void each_block(int64_t begin, int64_t end, const Act& act) {
  for (int64_t row = begin; row < end; row += kBlockRows) {
    const int64_t n = end - row < kBlockRows ? end - row : kBlockRows;
    const Tiles tiles(n);
    act(row, n);
  }
}

}  // namespace
}  // namespace umbel
