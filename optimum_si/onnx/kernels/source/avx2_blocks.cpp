// 2:4 in integers times x in 8 bits: 16 inputs are shuffled at once for 4 rows, products summed in 16 and 32 bits.
#include "avx2.h"

namespace si::avx2 {
namespace {

// Weights of block `kBlock` of a chunk.
template <int kBits, int kBlock>
SI_INLINE __m256i weights(const uint8_t* chunk) {
  if constexpr (kBits == 8) return load32(chunk + 32 * kBlock);
  const __m256i pairs = load32(chunk + 32 * (kBlock / 2));
  const __m256i nibbles = _mm256_and_si256(kBlock % 2 ? _mm256_srli_epi16(pairs, 4) : pairs, _mm256_set1_epi8(15));
  return _mm256_sub_epi8(nibbles, _mm256_set1_epi8(8));
}

// Scales of the 4 rows of a strip, each twice as sums have it; `number` counts groups of all strips.
template <int kBits>
SI_INLINE __m256 scales_of(const Packed& p, int64_t number) {
  if constexpr (kBits == 4) {
    const __m128i halves = load8(p.scales.data + 8 * number);
    return _mm256_cvtph_ps(_mm_unpacklo_epi16(halves, halves));
  }
  const __m256 own = _mm256_castsi256_ps(_mm256_castsi128_si256(load16(p.scales.data + 16 * number)));
  return _mm256_permutevar8x32_ps(own, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}

// Products of a unit of 32 columns, which are blocks kBlock and kBlock + 1, for `kRows` rows of x.
template <int kBits, int kBlock, int kRows>
SI_INLINE void unit(const uint8_t* chunk, __m256i positions, const int8_t* x, int64_t stride, __m256i (&products)[kRows]) {
  const __m256i base = _mm256_set1_epi64x(0x0c0c080804040000);
  SI_UNROLL
  for (auto& product : products) product = _mm256_setzero_si256();
  const __m256i ones = _mm256_set1_epi16(1);
  auto block = [&](__m256i bits, __m256i weight, const int8_t* at) __attribute__((always_inline)) {
    const __m256i place = _mm256_or_si256(_mm256_and_si256(bits, _mm256_set1_epi8(3)), base);
    // One factor must be unsigned: the weight's magnitude, with its sign given to x, which is never -128.
    const __m256i magnitude = _mm256_abs_epi8(weight);
    SI_UNROLL
    for (int row = 0; row < kRows; ++row) {
      const __m128i inputs = load16(reinterpret_cast<const uint8_t*>(at + row * stride));
      const __m256i picked = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(inputs), place);
      const __m256i both = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(picked, weight));
      // Two products of 8 bits fit into 16; of 4 bits four do, and are widened together.
      products[row] = kBits == 8 ? _mm256_add_epi32(products[row], _mm256_madd_epi16(both, ones))
                                 : _mm256_add_epi16(products[row], both);
    }
  };
  block(kBlock ? _mm256_srli_epi16(positions, 2 * kBlock) : positions, weights<kBits, kBlock>(chunk), x);
  block(_mm256_srli_epi16(positions, 2 * kBlock + 2), weights<kBits, kBlock + 1>(chunk), x + 16);
  if constexpr (kBits == 4)
    SI_UNROLL
    for (auto& product : products) product = _mm256_madd_epi16(product, ones);
}

// A strip times `kRows` rows of x. With `kFine` each unit has scales of its own, else whole chunks share them.
template <int kBits, int kRows, bool kFine>
void strip_rows(const Task& task, int64_t strip, int64_t m) {
  const Packed& p = *task.packed;
  const int64_t stride = p.padded_columns(), chunks = stride / kBlockColumns, units = stride / kUnit;
  constexpr int kBytes = kBlockColumns * kBlockStrip / 2 * kBits / 8;  // of values in a chunk
  const uint8_t* values = p.values.data + strip * chunks * kBytes;
  const uint8_t* indices = p.indices.data + strip * chunks * 32;
  const int8_t* x = task.x8 + m * stride;
  const float* x_scales = task.x8_scales + m * units;
  const int64_t each = p.group < p.columns ? p.group / kBlockColumns : chunks;  // chunks that share scales
  __m256 sums[kRows], totals[kRows];
  SI_UNROLL
  for (int row = 0; row < kRows; ++row) sums[row] = totals[row] = _mm256_setzero_ps();
  const int64_t groups = p.groups();
  int64_t left = each, group = strip * groups;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const __m256i positions = load32(indices + chunk * 32);
    const uint8_t* at = values + chunk * kBytes;
    ask_ahead<kBytes>(at);
    __m256i products[2][kRows];
    unit<kBits, 0, kRows>(at, positions, x + chunk * kBlockColumns, stride, products[0]);
    unit<kBits, 2, kRows>(at, positions, x + chunk * kBlockColumns + kUnit, stride, products[1]);
    SI_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int64_t number = 2 * chunk + half;
      __m256 scales;
      // The last chunk may have a unit of nothing, which has no scales of its own.
      if constexpr (kFine) scales = scales_of<kBits>(p, strip * groups + (number < groups ? number : groups - 1));
      SI_UNROLL
      for (int row = 0; row < kRows; ++row) {
        __m256 factor = _mm256_broadcast_ss(x_scales + row * units + number);
        if constexpr (kFine) factor = _mm256_mul_ps(factor, scales);
        sums[row] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products[half][row]), factor, sums[row]);
      }
    }
    if (!kFine && (!--left || chunk == chunks - 1)) {
      const __m256 scales = scales_of<kBits>(p, group++);
      left = each;
      SI_UNROLL
      for (int row = 0; row < kRows; ++row) {
        totals[row] = _mm256_fmadd_ps(sums[row], scales, totals[row]);
        sums[row] = _mm256_setzero_ps();
      }
    }
  }
  SI_UNROLL
  for (int row = 0; row < kRows; ++row) {
    alignas(32) float halves[8];
    _mm256_store_ps(halves, kFine ? sums[row] : totals[row]);
    for (int place = 0; place < kBlockStrip; ++place)
      put(task, m + row, strip * kBlockStrip + place, halves[2 * place] + halves[2 * place + 1]);
  }
}

template <int kBits, int kRows, bool kFine>
void strips(const Task& task, int64_t first, int64_t last, int64_t m) {
  for (int64_t strip = first / kBlockStrip; strip * kBlockStrip < last; ++strip)
    strip_rows<kBits, kRows, kFine>(task, strip, m);
}

template <int kBits, bool kFine>
void all_rows(const Task& task, int64_t first, int64_t last) {
  in_pieces(first, last, kBlockStrip, task.packed->padded_columns() * kBits / 4, [&](int64_t start, int64_t stop) {
    int64_t m = 0;
    for (; m + 4 <= task.count; m += 4) strips<kBits, 4, kFine>(task, start, stop, m);
    for (; m + 2 <= task.count; m += 2) strips<kBits, 2, kFine>(task, start, stop, m);
    if (m < task.count) strips<kBits, 1, kFine>(task, start, stop, m);
  });
}

}  // namespace

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
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + start), _mm256_permutevar8x32_epi32(bytes, order));
    scales[start / kUnit] = scale;
  }
}

void blocks(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const bool fine = p.group == kUnit && p.group < p.columns;
  if (p.values_kind == Values::kInt8)
    return fine ? all_rows<8, true>(task, first, last) : all_rows<8, false>(task, first, last);
  return fine ? all_rows<4, true>(task, first, last) : all_rows<4, false>(task, first, last);
}

}  // namespace si::avx2
