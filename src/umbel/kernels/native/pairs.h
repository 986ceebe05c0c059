// Rows of keys and values as pairs of bfloat16, for processors that multiply these.
#pragma once

#include <immintrin.h>

#include "kv_rows.h"

namespace {

// 32 numbers of a row of keys or values, or the first of them.
UMBEL_INLINE __m512i load_pairs(const bf16* row) { return _mm512_loadu_si512(row); }
UMBEL_INLINE __m512i load_pairs(const bf16* row, __mmask32 first) { return _mm512_maskz_loadu_epi16(first, row); }
UMBEL_INLINE __m512i widened(__m256i bytes, float scale) {
  const Vec low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(bytes)));
  const Vec high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(bytes, 1)));
  return (__m512i)_mm512_cvtne2ps_pbh(mul(high, set1(scale)), mul(low, set1(scale)));
}
UMBEL_INLINE __m512i load_pairs(Int8Row row) {
  return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row.at)), row.scale);
}
UMBEL_INLINE __m512i load_pairs(Int8Row row, __mmask32 first) {
  // Without a first number the scale is not that of a row that is read, and zeros must stay zeros.
  return first == 0 ? _mm512_setzero_si512() : widened(_mm256_maskz_loadu_epi8(first, row.at), row.scale);
}

// The rows of 16 keys of pairs become 16 vectors, one for each pair.
UMBEL_INLINE void transpose(__m512i (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int e = 0; e < 4; e++) {
    t[e] = _mm512_shuffle_i32x4(r[e], r[4 + e], 0x88);
    t[4 + e] = _mm512_shuffle_i32x4(r[e], r[4 + e], 0xdd);
    t[8 + e] = _mm512_shuffle_i32x4(r[8 + e], r[12 + e], 0x88);
    t[12 + e] = _mm512_shuffle_i32x4(r[8 + e], r[12 + e], 0xdd);
  }
#pragma GCC unroll 4
  for (int e = 0; e < 4; e++) {
    r[e] = _mm512_shuffle_i32x4(t[e], t[8 + e], 0x88);
    r[8 + e] = _mm512_shuffle_i32x4(t[e], t[8 + e], 0xdd);
    r[4 + e] = _mm512_shuffle_i32x4(t[4 + e], t[12 + e], 0x88);
    r[12 + e] = _mm512_shuffle_i32x4(t[4 + e], t[12 + e], 0xdd);
  }
}

}  // namespace
