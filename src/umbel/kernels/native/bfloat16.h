// Rounding to bfloat16: after each operation of a chain, as the same chain of operations on bfloat16 tensors rounds.
#pragma once

#include "vec.h"

namespace {

// The nearest bfloat16, ties to even, as a float; a NaN stays one.
#if defined(__AVX512BF16__)
// The instruction takes what is below 1.2e-38 for zero.
UMBEL_INLINE __m256i narrowed(Vec v) { return (__m256i)_mm512_cvtneps_pbh(v); }

UMBEL_INLINE Vec rounded(Vec v) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrowed(v)), 16));
}

UMBEL_INLINE void store(bf16* p, Vec v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrowed(v)); }
#elif defined(UMBEL_AVX512)
UMBEL_INLINE Vec rounded(Vec v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __m512i cut = _mm512_and_si512(up, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u)));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_mask_blend_ps(nan, _mm512_castsi512_ps(cut), set1(__builtin_nanf("")));
}
UMBEL_INLINE void store(bf16* p, Vec v) {
  const __m512i bits = _mm512_srli_epi32(_mm512_castps_si512(rounded(v)), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(bits));
}
#elif defined(UMBEL_AVX2)
UMBEL_INLINE Vec rounded(Vec v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i cut = _mm256_and_si256(up, _mm256_set1_epi32(static_cast<int>(0xFFFF0000u)));
  return _mm256_blendv_ps(_mm256_castsi256_ps(cut), set1(__builtin_nanf("")), _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
}
UMBEL_INLINE void store(bf16* p, Vec v) {
  const __m256i bits = _mm256_srli_epi32(_mm256_castps_si256(rounded(v)), 16);
  const __m128i low = _mm256_castsi256_si128(bits), high = _mm256_extracti128_si256(bits, 1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packus_epi32(low, high));
}
#else
UMBEL_INLINE Vec rounded(Vec v) {
  const Ints bits = reinterpret_cast<Ints>(v);
  const Ints up = bits + ((bits >> 16 & 1) + 0x7FFF), cut = up & static_cast<int32_t>(0xFFFF0000u);
  return pick(v == v, reinterpret_cast<Vec>(cut), set1(__builtin_nanf("")));
}
UMBEL_INLINE void store(bf16* p, Vec v) {
  const Ints bits = reinterpret_cast<Ints>(rounded(v));
  for (int i = 0; i < W; i++) p[i] = static_cast<bf16>(static_cast<uint32_t>(bits[i]) >> 16);
}
#endif

// What tensors of T keep of a value.
template <class T>
UMBEL_INLINE Vec as(Vec v) {
  return sizeof(T) == 2 ? rounded(v) : v;
}

template <class T>
UMBEL_INLINE void store_some(T* p, Vec v, int64_t n) {
  if (n >= W) return store(p, v);
  T lanes[W];
  store(lanes, v);
  std::memcpy(p, lanes, sizeof(T) * n);
}

// silu(gate) * up; exp is about one unit in the last place off.
template <class T>
UMBEL_INLINE Vec gated(Vec gate, Vec up) {
  return mul(as<T>(div(gate, add(exp_of(sub(set1(0.0f), gate)), set1(1.0f)))), up);
}

}  // namespace
