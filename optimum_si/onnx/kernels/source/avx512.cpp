// Kernels for AVX-512 with VBMI2 and VNNI. What one instruction does there that AVX2 needs several for is here: values
// are expanded by a mask, products of 8 bits are summed up in 32, registers are twice as wide. The rest is AVX2's.
#include "avx2.h"

namespace si::avx512 {
namespace {

using namespace avx2;

#include "many.h"

struct Lanes {
  using Register = __m512;
  static constexpr int kCount = 16;
  static Register zero() { return _mm512_setzero_ps(); }
  static Register all(float value) { return _mm512_set1_ps(value); }
  static Register load(const float* at) { return _mm512_loadu_ps(at); }
  static void store(float* at, Register value) { _mm512_storeu_ps(at, value); }
  static Register add(Register one, Register other) { return _mm512_add_ps(one, other); }
  static Register multiply_add(Register one, Register other, Register sum) { return _mm512_fmadd_ps(one, other, sum); }
};

inline __m512 twice(__m256 half) {
  return _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_castps_pd(half)));
}
inline __m256 low_half(__m512 all) { return _mm512_castps512_ps256(all); }
inline __m256 high_half(__m512 all) {
  return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1));
}

// Values by kind: `sixteen` from `number` on, and `expanded` to where the bits of a mask of 16 columns are.
struct WideFp32 {
  static SI_INLINE __m512 sixteen(const uint8_t* data, int64_t number) { return _mm512_loadu_ps(data + 4 * number); }
  static SI_INLINE __m512 expanded(const uint8_t* data, int64_t number, __mmask16 mask) {
    const __m512 values = _mm512_loadu_ps(data + 4 * number);
    return _mm512_maskz_expand_ps(mask, values);
  }
};
struct WideFp16 {
  static SI_INLINE __m512 sixteen(const uint8_t* data, int64_t number) {
    return _mm512_cvtph_ps(load32(data + 2 * number));
  }
  static SI_INLINE __m512 expanded(const uint8_t* data, int64_t number, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_expand_epi16(mask, load32(data + 2 * number)));
  }
};
struct WideInt8 {
  static SI_INLINE __m512 from(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }
  static SI_INLINE __m512 expanded(const uint8_t* data, int64_t number, __mmask16 mask) {
    return from(_mm_maskz_expand_epi8(mask, load16(data + number)));
  }
};
struct WideInt4 {
  static SI_INLINE __m512 expanded(const uint8_t* data, int64_t number, __mmask16 mask) {
    const __m128i low = Int4::bytes(data, number), high = Int4::bytes(data, number + 8);
    return WideInt8::from(_mm_maskz_expand_epi8(mask, _mm_unpacklo_epi64(low, high)));
  }
};

// Pairs [0, 4) of a strip of 2:4 times `kRows` rows of x, two pairs in a register.
template <class Value, int kRows>
void pair_rows(const Task& task, int64_t strip, int64_t m) {
  const Packed& p = *task.packed;
  const int64_t steps = p.padded_columns() / kStep, stride = p.padded_columns();
  const uint8_t* codes = p.indices.data + strip * steps * 8;
  const float* x = task.x + m * stride;
  const Table pick(kShuffles.pick);
  __m512 sums[kRows][2];
  SI_UNROLL
  for (auto& row : sums) row[0] = row[1] = _mm512_setzero_ps();
  int64_t number = strip * steps * 32;
  for (int64_t step = 0; step < steps; ++step, codes += 8) {
    SI_UNROLL
    for (int half = 0; half < 2; ++half, number += 16) {
      __m512i shuffle = _mm512_castsi128_si512(pick.of(codes[4 * half]));
      shuffle = _mm512_inserti32x4(shuffle, pick.of(codes[4 * half + 1]), 1);
      shuffle = _mm512_inserti32x4(shuffle, pick.of(codes[4 * half + 2]), 2);
      shuffle = _mm512_inserti32x4(shuffle, pick.of(codes[4 * half + 3]), 3);
      const __m512 weight = Value::sixteen(p.values.data, number);
      SI_UNROLL
      for (int row = 0; row < kRows; ++row) {
        const __m512i inputs = _mm512_castps_si512(twice(_mm256_loadu_ps(x + row * stride + step * kStep)));
        const __m512 picked = _mm512_castsi512_ps(_mm512_shuffle_epi8(inputs, shuffle));
        sums[row][half] = _mm512_fmadd_ps(picked, weight, sums[row][half]);
      }
    }
  }
  for (int row = 0; row < kRows; ++row)
    for (int pair = 0; pair < 4; ++pair) {
      const __m256 slots = pair % 2 ? high_half(sums[row][pair / 2]) : low_half(sums[row][pair / 2]);
      __m128 sum = _mm_add_ps(_mm256_castps256_ps128(slots), _mm256_extractf128_ps(slots, 1));
      sum = _mm_hadd_ps(sum, sum);
      put(task, m + row, strip * kStrip + 2 * pair, _mm_cvtss_f32(sum));
      put(task, m + row, strip * kStrip + 2 * pair + 1, _mm_cvtss_f32(_mm_shuffle_ps(sum, sum, 1)));
    }
}

// A strip of masks times `kRows` rows of x, two rows of the weight in a register.
template <class Value, int kRows>
void mask_rows(const Task& task, int64_t strip, int64_t m) {
  const Packed& p = *task.packed;
  const Scales scales(p);
  const int64_t steps = p.padded_columns() / kStep, stride = p.padded_columns();
  const int64_t shared = p.group && p.group < p.columns ? p.group / kStep : steps;
  const uint8_t* masks = p.indices.data + strip * steps * kMaskStrip;
  const float* x = task.x + m * stride;
  __m512 totals[kRows][2];
  SI_UNROLL
  for (auto& row : totals) row[0] = row[1] = _mm512_setzero_ps();
  int64_t number = first_of(p, strip, steps), step = 0;
  for (int64_t group = 0; step < steps; ++group) {
    __m512 sums[kRows][2];
    SI_UNROLL
    for (auto& row : sums) row[0] = row[1] = _mm512_setzero_ps();
    const int64_t stop = step + shared < steps ? step + shared : steps;
    for (; step < stop; ++step, masks += kMaskStrip)
      SI_UNROLL
      for (int half = 0; half < 2; ++half) {
        const unsigned mask = mask_of(p, masks[2 * half]) | mask_of(p, masks[2 * half + 1]) << 8;
        const __m512 weight = Value::expanded(p.values.data, number, __mmask16(mask));
        number += __builtin_popcount(mask);
        SI_UNROLL
        for (int row = 0; row < kRows; ++row)
          sums[row][half] = _mm512_fmadd_ps(twice(_mm256_loadu_ps(x + row * stride + step * kStep)), weight, sums[row][half]);
      }
    alignas(16) float four[4];
    _mm_store_ps(four, scales.four(strip, group));
    SI_UNROLL
    for (int half = 0; half < 2; ++half) {
      const __m512 scale = _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(four[2 * half]), _mm512_set1_ps(four[2 * half + 1]));
      SI_UNROLL
      for (int row = 0; row < kRows; ++row) totals[row][half] = _mm512_fmadd_ps(sums[row][half], scale, totals[row][half]);
    }
  }
  for (int row = 0; row < kRows; ++row)
    for (int place = 0; place < kMaskStrip; ++place) {
      const __m512 both = totals[row][place / 2];
      put(task, m + row, strip * kMaskStrip + place, sum_of(place % 2 ? high_half(both) : low_half(both)));
    }
}

// A strip of blocks times one row of x, a unit of 32 columns in a register: one block in each half.
template <int kBits>
void block_row(const Task& task, int64_t strip, int64_t m) {
  const Packed& p = *task.packed;
  const int64_t stride = p.padded_columns(), chunks = stride / kBlockColumns, units = stride / kUnit;
  constexpr int kBytes = kBlockColumns * kBlockStrip / 2 * kBits / 8;
  const uint8_t* values = p.values.data + strip * chunks * kBytes;
  const uint8_t* indices = p.indices.data + strip * chunks * 32;
  const int8_t* x = task.x8 + m * stride;
  const float* x_scales = task.x8_scales + m * units;
  const bool fine = p.group == kUnit && p.group < p.columns;
  const int64_t shared = fine ? 1 : p.group < p.columns ? p.group / kUnit : units;  // units that share scales
  const Scales scales(p);
  const __m512i base = _mm512_set1_epi64(0x0c0c080804040000);
  __m512 sums = _mm512_setzero_ps(), totals = _mm512_setzero_ps();
  int64_t group = 0, left = shared;
  for (int64_t unit = 0; unit < units; ++unit) {
    const int half = int(unit % 2);
    const __m512i all = _mm512_broadcast_i64x4(load32(indices + unit / 2 * 32));
    const __m512i shifts = half ? _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(6), 1)
                                : _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
    const __m512i bits = _mm512_and_si512(_mm512_srlv_epi16(all, shifts), _mm512_set1_epi8(3));
    __m512i weight;
    if constexpr (kBits == 8) {
      weight = _mm512_loadu_si512(values + unit / 2 * kBytes + half * 64);
    } else {
      const __m512i pairs = _mm512_broadcast_i64x4(load32(values + unit / 2 * kBytes + half * 32));
      const __m512i nibbles = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
      weight = _mm512_and_si512(_mm512_srlv_epi16(pairs, nibbles), _mm512_set1_epi8(15));
      weight = _mm512_sub_epi8(weight, _mm512_set1_epi8(8));
    }
    const __m512i both = _mm512_castsi256_si512(load32(reinterpret_cast<const uint8_t*>(x + unit * kUnit)));
    const __m512i inputs = _mm512_shuffle_i64x2(both, both, 0x50);
    __m512i picked = _mm512_shuffle_epi8(inputs, _mm512_or_si512(bits, base));
    // One factor must be unsigned: the weight's magnitude, with its sign given to x, which is never -128.
    picked = _mm512_mask_sub_epi8(picked, _mm512_movepi8_mask(weight), _mm512_setzero_si512(), picked);
    const __m512i products = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_abs_epi8(weight), picked);
    sums = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_set1_ps(x_scales[unit]), sums);
    if (--left && unit < units - 1) continue;
    // The last unit may be of nothing, which has no scales of its own.
    const __m128 four = scales.four(strip, group < scales.groups ? group : scales.groups - 1);
    const __m256 each = _mm256_set_m128(_mm_unpackhi_ps(four, four), _mm_unpacklo_ps(four, four));
    totals = _mm512_fmadd_ps(sums, twice(each), totals);
    sums = _mm512_setzero_ps();
    ++group, left = shared;
  }
  alignas(32) float halves[8];
  _mm256_store_ps(halves, _mm256_add_ps(low_half(totals), high_half(totals)));
  for (int place = 0; place < kBlockStrip; ++place)
    put(task, m, strip * kBlockStrip + place, halves[2 * place] + halves[2 * place + 1]);
}

// Calls `strip_rows` for 4 rows of x at a time and what is left, for pieces of the weight.
template <template <int> class Strip>
void all_rows(const Task& task, int64_t first, int64_t last, int64_t strip, int64_t bytes) {
  in_pieces(first, last, strip, bytes, [&](int64_t start, int64_t stop) {
    int64_t m = 0;
    for (; m + 4 <= task.count; m += 4)
      for (int64_t at = start / strip; at * strip < stop; ++at) Strip<4>::run(task, at, m);
    for (; m < task.count; ++m)
      for (int64_t at = start / strip; at * strip < stop; ++at) Strip<1>::run(task, at, m);
  });
}
template <class Value>
struct Pairs {
  template <int kRows>
  struct Strip {
    static void run(const Task& task, int64_t strip, int64_t m) { pair_rows<Value, kRows>(task, strip, m); }
  };
};
template <class Value>
struct Masks {
  template <int kRows>
  struct Strip {
    static void run(const Task& task, int64_t strip, int64_t m) { mask_rows<Value, kRows>(task, strip, m); }
  };
};

void pairs(const Task& task, int64_t first, int64_t last) {
  const int64_t columns = task.packed->padded_columns();
  if (task.packed->values_kind == Values::kFp32)
    return all_rows<Pairs<WideFp32>::Strip>(task, first, last, kStrip, columns * 16);
  all_rows<Pairs<WideFp16>::Strip>(task, first, last, kStrip, columns * 8);
}

void masks(const Task& task, int64_t first, int64_t last) {
  const int64_t bytes = task.packed->padded_columns() * 8;
  switch (task.packed->values_kind) {
    case Values::kFp32: return all_rows<Masks<WideFp32>::Strip>(task, first, last, kMaskStrip, bytes);
    case Values::kFp16: return all_rows<Masks<WideFp16>::Strip>(task, first, last, kMaskStrip, bytes);
    case Values::kInt8: return all_rows<Masks<WideInt8>::Strip>(task, first, last, kMaskStrip, bytes);
    default: return all_rows<Masks<WideInt4>::Strip>(task, first, last, kMaskStrip, bytes);
  }
}

void block_rows(const Task& task, int64_t first, int64_t last) {
  for (int64_t strip = first / kBlockStrip; strip * kBlockStrip < last; ++strip)
    for (int64_t m = 0; m < task.count; ++m)
      task.packed->values_kind == Values::kInt8 ? block_row<8>(task, strip, m) : block_row<4>(task, strip, m);
}

}  // namespace

void multiply(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  // Few rows of x do not fill a register; several rows share what AVX2 decodes of blocks; CSR waits for x, not for sums.
  const bool wide = task.turned.data ? task.turned.lanes == Lanes::kCount
                                     : p.format != Format::kCsr && !(p.in_blocks() && task.count > 2);
  if (task.dense || !wide) return avx2::multiply(task, first, last);
  if (task.turned.data) return many_of_kind<Lanes>(task, first, last);
  if (p.in_blocks()) return block_rows(task, first, last);
  return p.in_masks() ? masks(task, first, last) : pairs(task, first, last);
}

}  // namespace si::avx512
