// Some values as int8: round(v / scale), with scale = max |v| / 127. Values that are not all finite get a scale of NaN.
#pragma once

#include "bfloat16.h"

namespace umbel {
namespace {

template <class T>
float most_of(const T* x, int64_t width) {
  Vec most = set1(0.0f), odd = most;
  for (int64_t d = 0; d < width; d += W) {
    const Vec v = load_some(x + d, static_cast<int>(width - d < W ? width - d : W));
    most = max(most, max(v, sub(set1(0.0f), v)));
    odd = fma(v, set1(0.0f), odd);  // NaN where v is not finite
  }
  const float sick = sum_of(odd);
  return sick == sick ? max_of(most) : sick;
}

UMBEL_INLINE void store_bytes(uint8_t* to, Vec v, int more, int64_t n) {
#if defined(UMBEL_AVX512)
  const __m512i whole = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(more));
  if (n >= W) return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(whole));
#endif
  float lanes[W];
  store(lanes, v);
  for (int64_t i = 0; i < n && i < W; i++) to[i] = static_cast<uint8_t>(static_cast<int32_t>(lanes[i]) + more);
}

// Gives the scale of n values. `more` is added to their numbers, whose sum is put into `sum`, if given.
template <class T>
UMBEL_INLINE float round_some(const T* from, int64_t n, uint8_t* out, int more, int32_t* sum) {
  const float most = most_of(from, n);
  const bool flat = !(most > 0.0f);  // nothing to tell apart, or nothing to rely on
  const Vec steps = set1(flat ? 0.0f : 127.0f / most);
  Vec total = set1(0.0f);
  for (int64_t d = 0; d < n; d += W) {
    const int64_t left = n - d;
    const Vec v = flat ? set1(0.0f) : load_some(from + d, static_cast<int>(left < W ? left : W));
    const Vec whole = round_whole(mul(v, steps));
    store_bytes(out + d, whole, more, left);
    total = add(total, whole);
  }
  if (sum != nullptr) *sum = static_cast<int32_t>(sum_of(total));
  return most / 127.0f;
}

}  // namespace
}  // namespace umbel
