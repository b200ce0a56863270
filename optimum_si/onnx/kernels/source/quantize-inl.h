// x in 8 bits, for 2:4 in integers.
#pragma once
#include <immintrin.h>

#include "packed.h"
#include "target.h"

namespace si::SI_TARGET {

void quantize(const float* x, int64_t count, int8_t* out, float* scales) {
  const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (int64_t start = 0; start < count; start += kUnit) {
    __m256 parts[4], most = _mm256_setzero_ps();
    SI_UNROLL
    for (int part = 0; part < 4; ++part) {
      parts[part] = _mm256_loadu_ps(x + start + 8 * part);
      most = _mm256_max_ps(most, _mm256_and_ps(parts[part], no_sign));
    }
    __m128 one = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    one = _mm_max_ps(one, _mm_movehl_ps(one, one));
    const float scale = _mm_cvtss_f32(_mm_max_ss(one, _mm_movehdup_ps(one))) / 127;
    // A subnormal scale has no finite inverse.
    const __m256 inverse = _mm256_set1_ps(scale >= 1.2e-38f ? 1 / scale : 0);
    __m256i whole[4];
    SI_UNROLL
    for (int part = 0; part < 4; ++part) whole[part] = _mm256_cvtps_epi32(_mm256_mul_ps(parts[part], inverse));
    const __m256i low = _mm256_packs_epi32(whole[0], whole[1]), high = _mm256_packs_epi32(whole[2], whole[3]);
    const __m256i bytes = _mm256_packs_epi16(low, high);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + start), _mm256_permutevar8x32_epi32(bytes, order));
    scales[start / kUnit] = scale;
  }
}

}  // namespace si::SI_TARGET
