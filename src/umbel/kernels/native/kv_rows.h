// Rows of keys and values as the kernels read them: pointers to float32 or bfloat16, or int8 with a scale for each row,
// which is read as the floats that it stands for.
#pragma once

#include "vec.h"

namespace {

// Keys or values of one KV head that are int8, and one of their rows. Those of other types are pointers.
struct Int8Rows {
  const int8_t* at;
  const float* scales;
};
struct Int8Row {
  const int8_t* at;
  float scale;
};

UMBEL_INLINE Int8Rows operator+(Int8Rows rows, int64_t d) { return {rows.at + d, rows.scales}; }
UMBEL_INLINE Int8Row operator+(Int8Row row, int64_t d) { return {row.at + d, row.scale}; }
UMBEL_INLINE Vec load(Int8Row row) { return mul(load(row.at), set1(row.scale)); }
UMBEL_INLINE Vec load_first(Int8Row row, int n) { return mul(load_first(row.at, n), set1(row.scale)); }
UMBEL_INLINE Vec load_some(Int8Row row, int n) { return n >= W ? load(row) : load_first(row, n); }

template <class T>
UMBEL_INLINE const T* row_of(const T* base, int64_t stride, int64_t k) {
  return base + k * stride;
}
UMBEL_INLINE Int8Row row_of(Int8Rows base, int64_t stride, int64_t k) { return {base.at + k * stride, base.scales[k]}; }

// Row k of keys or values: that of slot slots[k], or (without slots) of rows side by side.
template <bool kSlots, class Rows>
UMBEL_INLINE auto row_at(Rows base, int64_t stride, const int32_t* slots, int64_t k) {
  return row_of(base, stride, kSlots ? slots[k] : k);
}

// Ask for the rows of keys [from, to) ahead of their use.
template <class T>
UMBEL_INLINE void fetch(const T* base, int64_t stride, const int32_t* slots, int from, int to) {
  constexpr int kLine = 64 / sizeof(T);
  for (int k = from; k < to; k++)
    for (int64_t d = 0; d < stride; d += kLine) __builtin_prefetch(base + slots[k] * stride + d, 0, 2);
}
UMBEL_INLINE void fetch(Int8Rows base, int64_t stride, const int32_t* slots, int from, int to) {
  fetch(base.at, stride, slots, from, to);
}

// Few queries wait for memory: then the values of the keys at hand, which come next, and keys further on are asked for.
template <class Rows>
UMBEL_INLINE void fetch_ahead(Rows keys, Rows values, int64_t stride, int64_t v_stride, const int32_t* slots, int at,
                              int n_keys) {
  constexpr int kAhead = 12;
  const int stop = at + 4 < n_keys ? at + 4 : n_keys;
  fetch(values, v_stride, slots, at, stop);
  if (at + kAhead < n_keys) fetch(keys, stride, slots, at + kAhead, stop + kAhead < n_keys ? stop + kAhead : n_keys);
}

}  // namespace
