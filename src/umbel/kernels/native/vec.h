// One vector of floats per instruction set; the same operations everywhere, so that the kernels are written once.
// UMBEL_AVX512 and UMBEL_AVX2 are set by the file that includes this; else a 16-byte vector that SSE2 and NEON have.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(UMBEL_AVX512) || defined(UMBEL_AVX2)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define UMBEL_INLINE static inline __attribute__((always_inline))

namespace {

using bf16 = uint16_t;

#if defined(UMBEL_AVX512)

constexpr int W = 16;
using Vec = __m512;
UMBEL_INLINE Vec set1(float x) { return _mm512_set1_ps(x); }
UMBEL_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
UMBEL_INLINE Vec load(const bf16* p) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
UMBEL_INLINE Vec load(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
UMBEL_INLINE void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
UMBEL_INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
UMBEL_INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
UMBEL_INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
UMBEL_INLINE Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
UMBEL_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
UMBEL_INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }
// A NaN in `b` comes through, here and in min: that is how the instructions treat their second operand.
UMBEL_INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
UMBEL_INLINE Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
UMBEL_INLINE Vec scale_by_power(Vec x, Vec n) {  // x * 2^n for whole n
  __m512i bits = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
  return _mm512_mul_ps(x, _mm512_castsi512_ps(bits));
}
UMBEL_INLINE Vec round_whole(Vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
UMBEL_INLINE __m256 half(Vec v) {
  return _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
}
UMBEL_INLINE Vec keep(Vec v, int low, int high, float other) {  // lanes [low, high) of v, the others `other`
  unsigned from_low = low <= 0 ? 0xFFFFu : low >= 16 ? 0u : 0xFFFFu << low;
  unsigned to_high = high >= 16 ? 0xFFFFu : high <= 0 ? 0u : (1u << high) - 1u;
  return _mm512_mask_blend_ps(static_cast<__mmask16>(from_low & to_high & 0xFFFFu), _mm512_set1_ps(other), v);
}
UMBEL_INLINE Vec absolute(Vec x) { return _mm512_abs_ps(x); }
UMBEL_INLINE Vec with_sign(Vec x, Vec of) {  // x, at least 0, with the sign of another
  return _mm512_or_ps(x, _mm512_and_ps(of, _mm512_set1_ps(-0.0f)));
}
UMBEL_INLINE Vec pick_below(Vec x, float limit, Vec a, Vec b) {  // a in lanes where x is below the limit, else b
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_LT_OQ), b, a);
}

#elif defined(UMBEL_AVX2)

constexpr int W = 8;
using Vec = __m256;
UMBEL_INLINE Vec set1(float x) { return _mm256_set1_ps(x); }
UMBEL_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
UMBEL_INLINE Vec load(const bf16* p) {
  __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
UMBEL_INLINE Vec load(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
UMBEL_INLINE void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
UMBEL_INLINE Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
UMBEL_INLINE Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
UMBEL_INLINE Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
UMBEL_INLINE Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
UMBEL_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
UMBEL_INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }
UMBEL_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
UMBEL_INLINE Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
UMBEL_INLINE Vec scale_by_power(Vec x, Vec n) {
  __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(x, _mm256_castsi256_ps(bits));
}
UMBEL_INLINE Vec round_whole(Vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
UMBEL_INLINE __m256 half(Vec v) { return v; }
UMBEL_INLINE Vec keep(Vec v, int low, int high, float other) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256i inside = _mm256_and_si256(_mm256_cmpgt_epi32(lane, _mm256_set1_epi32(low - 1)),
                                    _mm256_cmpgt_epi32(_mm256_set1_epi32(high), lane));
  return _mm256_blendv_ps(_mm256_set1_ps(other), v, _mm256_castsi256_ps(inside));
}
UMBEL_INLINE Vec absolute(Vec x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
UMBEL_INLINE Vec with_sign(Vec x, Vec of) { return _mm256_or_ps(x, _mm256_and_ps(of, _mm256_set1_ps(-0.0f))); }
UMBEL_INLINE Vec pick_below(Vec x, float limit, Vec a, Vec b) {
  return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, _mm256_set1_ps(limit), _CMP_LT_OQ));
}

#else

constexpr int W = 4;
typedef float Vec __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(16)));
UMBEL_INLINE Vec set1(float x) { return Vec{x, x, x, x}; }
UMBEL_INLINE Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
UMBEL_INLINE Vec load(const bf16* p) {
  Ints wide = {p[0], p[1], p[2], p[3]};
  return reinterpret_cast<Vec>(wide << 16);
}
UMBEL_INLINE Vec load(const int8_t* p) {
  return Vec{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]), static_cast<float>(p[3])};
}
UMBEL_INLINE void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
UMBEL_INLINE Vec add(Vec a, Vec b) { return a + b; }
UMBEL_INLINE Vec sub(Vec a, Vec b) { return a - b; }
UMBEL_INLINE Vec mul(Vec a, Vec b) { return a * b; }
UMBEL_INLINE Vec div(Vec a, Vec b) { return a / b; }
#if defined(__ARM_NEON)
UMBEL_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return Vec(vfmaq_f32(float32x4_t(c), float32x4_t(a), float32x4_t(b)));
}
UMBEL_INLINE Vec fnma(Vec a, Vec b, Vec c) {
  return Vec(vfmsq_f32(float32x4_t(c), float32x4_t(a), float32x4_t(b)));
}
#else
UMBEL_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }  // two roundings: compiled without contraction
UMBEL_INLINE Vec fnma(Vec a, Vec b, Vec c) { return c - a * b; }
#endif
UMBEL_INLINE Vec pick(Ints which, Vec a, Vec b) {
  return reinterpret_cast<Vec>((which & reinterpret_cast<Ints>(a)) | (~which & reinterpret_cast<Ints>(b)));
}
UMBEL_INLINE Vec max(Vec a, Vec b) { return pick(a > b, a, b); }
UMBEL_INLINE Vec min(Vec a, Vec b) { return pick(a < b, a, b); }
constexpr float kToWhole = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest whole number
UMBEL_INLINE Vec round_whole(Vec x) { return (x + set1(kToWhole)) - set1(kToWhole); }
UMBEL_INLINE Vec scale_by_power(Vec x, Vec n) {
  Ints whole = reinterpret_cast<Ints>(n + set1(kToWhole)) - Ints{0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000};
  return x * reinterpret_cast<Vec>((whole + 127) << 23);
}
 
UMBEL_INLINE Vec keep(Vec v, int low, int high, float other) {
  const Ints lane = {0, 1, 2, 3};
  Ints least = {low, low, low, low}, end = {high, high, high, high};
  return pick((lane >= least) & (lane < end), v, set1(other));
}
UMBEL_INLINE Vec absolute(Vec x) { return reinterpret_cast<Vec>(reinterpret_cast<Ints>(x) & 0x7FFFFFFF); }
UMBEL_INLINE Vec with_sign(Vec x, Vec of) {
  return reinterpret_cast<Vec>(reinterpret_cast<Ints>(x) | (reinterpret_cast<Ints>(of) & ~0x7FFFFFFF));
}
UMBEL_INLINE Vec pick_below(Vec x, float limit, Vec a, Vec b) { return pick(x < set1(limit), a, b); }

#endif

// The first n < W values at p, zeros behind them.
template <class T>
UMBEL_INLINE Vec load_first(const T* p, int n) {
  T some[W] = {};
  std::memcpy(some, p, sizeof(T) * n);
  return load(some);
}

template <class T>
UMBEL_INLINE Vec load_some(const T* p, int n) {
  return n >= W ? load(p) : load_first(p, n);
}

// Sums of four vectors' lanes, always associated in the same way.
#if defined(UMBEL_AVX512) || defined(UMBEL_AVX2)
UMBEL_INLINE void sums4(float* to, Vec a, Vec b, Vec c, Vec d) {
  const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(half(a), half(b)), _mm256_hadd_ps(half(c), half(d)));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1)));
}
#else
UMBEL_INLINE void sums4(float* to, Vec a, Vec b, Vec c, Vec d) {
  to[0] = (a[0] + a[1]) + (a[2] + a[3]);
  to[1] = (b[0] + b[1]) + (b[2] + b[3]);
  to[2] = (c[0] + c[1]) + (c[2] + c[3]);
  to[3] = (d[0] + d[1]) + (d[2] + d[3]);
}
#endif

UMBEL_INLINE float sum_of(Vec v) {
  float sums[4];
  sums4(sums, v, v, v, v);
  return sums[0];
}

#if defined(UMBEL_AVX512)
UMBEL_INLINE float max_of(Vec v) { return _mm512_reduce_max_ps(v); }
#elif defined(UMBEL_AVX2)
UMBEL_INLINE float max_of(Vec v) {
  __m128 top = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  top = _mm_max_ps(top, _mm_movehl_ps(top, top));
  return _mm_cvtss_f32(_mm_max_ss(top, _mm_movehdup_ps(top)));
}
#else
UMBEL_INLINE float max_of(Vec v) {
  const float a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
  return a > b ? a : b;
}
#endif

// exp to about one unit in the last place for x below 88; below -87.3 it stays at 1.2e-38. A NaN comes through.
UMBEL_INLINE Vec exp_below(Vec x) {
  x = max(set1(-87.3f), x);
  Vec n = round_whole(mul(x, set1(1.44269504088896341f)));
  Vec r = fnma(n, set1(-2.12194440e-4f), fnma(n, set1(0.693359375f), x));
  Vec p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = add(fma(p, mul(r, r), r), set1(1.0f));
  return scale_by_power(p, n);
}

// tanh to about two units in the last place: an odd polynomial (Cephes' tanhf) below 0.625, else by exp. A NaN comes
// through.
UMBEL_INLINE Vec tanh_of(Vec x) {
  const Vec size = absolute(x), square = mul(x, x);
  Vec p = set1(-5.70498872745e-3f);
  p = fma(p, square, set1(2.06390887954e-2f));
  p = fma(p, square, set1(-5.37397155531e-2f));
  p = fma(p, square, set1(1.33314422036e-1f));
  p = fma(p, square, set1(-3.33332819422e-1f));
  const Vec small = fma(mul(p, square), size, size);
  const Vec power = exp_below(min(set1(40.0f), add(size, size)));
  const Vec large = sub(set1(1.0f), div(set1(2.0f), add(power, set1(1.0f))));
  return with_sign(pick_below(size, 0.625f, small, large), x);
}

UMBEL_INLINE Vec exp_of(Vec x) { return exp_below(min(set1(88.0f), x)); }  // stays at exp(88) above

}  // namespace
