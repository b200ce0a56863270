// Kernels for AVX2 with FMA and F16C. Compiled with those switched on: nothing here may run before `supported`.
#include <immintrin.h>

#include <cstring>
#include <memory>

#include "packed.h"

#if defined(__clang__)
#define SI_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SI_UNROLL _Pragma("GCC unroll 8")
#endif

namespace si::avx2 {
namespace {

struct Fp32 {
  static constexpr int kBytes = 4;
  static __m256 load(const uint8_t* at) { return _mm256_loadu_ps(reinterpret_cast<const float*>(at)); }
};
struct Fp16 {
  static constexpr int kBytes = 2;
  static __m256 load(const uint8_t* at) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  }
};
struct Int8 {
  static constexpr int kBytes = 1;
  static __m256 load(const uint8_t* at) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at))));
  }
};

// 4 bytes in every lane.
inline __m256i spread(const uint8_t* at) {
  int32_t word;
  std::memcpy(&word, at, 4);
  return _mm256_set1_epi32(word);
}

// Positions of the 8 slots of each pair of rows in a step, and the inputs that they stand for.
struct TwoOfFour {
  static constexpr int kBytes = 8;  // of indices in a step of a strip
  static void positions(const uint8_t* at, __m256i* out) {
    const __m256i low = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
    const __m256i high = _mm256_setr_epi32(16, 18, 20, 22, 24, 26, 28, 30);
    const __m256i first = spread(at), second = spread(at + 4);
    out[0] = _mm256_srlv_epi32(first, low), out[1] = _mm256_srlv_epi32(first, high);
    out[2] = _mm256_srlv_epi32(second, low), out[3] = _mm256_srlv_epi32(second, high);
  }
  static __m256 pick(__m256 x, __m256i positions) { return _mm256_permutevar_ps(x, positions); }
  // Sums of the slots of the first and of the second row.
  static void sums(__m256 all, float& one, float& other) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
    sum = _mm_hadd_ps(sum, sum);
    one = _mm_cvtss_f32(sum), other = _mm_cvtss_f32(_mm_shuffle_ps(sum, sum, 1));
  }
};
struct FourOfEight {
  static constexpr int kBytes = 12;
  static void positions(const uint8_t* at, __m256i* out) {
    const __m256i by = _mm256_setr_epi32(0, 3, 6, 9, 12, 15, 18, 21);
    SI_UNROLL
    for (int pair = 0; pair < 4; ++pair) {
      out[pair] = _mm256_srlv_epi32(spread(at + 3 * pair), by);  // of the fourth byte nothing is used
    }
  }
  static __m256 pick(__m256 x, __m256i positions) { return _mm256_permutevar8x32_ps(x, positions); }
  static void sums(__m256 all, float& one, float& other) {
    __m256 sum = _mm256_hadd_ps(all, all);
    sum = _mm256_hadd_ps(sum, sum);
    one = _mm256_cvtss_f32(sum), other = _mm_cvtss_f32(_mm256_extractf128_ps(sum, 1));
  }
};

// What every kernel ends with.
inline void put(const Task& task, int64_t m, int64_t row, float sum) {
  if (row < task.packed->rows) task.y[m * task.stride + row] = sum + (task.bias ? task.bias[row] : 0.0f);
}

float scale_of(const Packed& p, int64_t row, int64_t number) {
  if (row >= p.rows) return 0.0f;
  float scale;
  std::memcpy(&scale, p.scales.data + 4 * (row * p.groups() + number), 4);
  return scale;
}

// A strip of 8 rows times `kRows` rows of x. Weights are decoded once for all of them; an input is picked by a
// permutation instead of multiplying by zeros, which halves the multiplications too.
template <class Pattern, class Value, int kRows, int kPairs, int kFirstPair>
void nm_strip(const Task& task, int64_t strip, int64_t m) {
  const Packed& p = *task.packed;
  const int64_t steps = p.padded_columns() / kStep, stride = p.padded_columns();
  const uint8_t* values = p.values.data + strip * steps * 32 * Value::kBytes + kFirstPair * 8 * Value::kBytes;
  const uint8_t* indices = p.indices.data + strip * steps * Pattern::kBytes;
  const float* x = task.x + m * stride;
  const int64_t each = p.group ? (p.group < p.columns ? p.group / kStep : steps) : steps;
  float totals[kRows][kPairs][2] = {};
  int64_t step = 0;
  for (int64_t group = 0; step < steps; ++group) {
    __m256 sums[kRows][kPairs];
    SI_UNROLL
    for (int row = 0; row < kRows; ++row)
      SI_UNROLL
      for (int pair = 0; pair < kPairs; ++pair) sums[row][pair] = _mm256_setzero_ps();
    const int64_t stop = step + each < steps ? step + each : steps;
    for (; step < stop; ++step) {
      __m256i positions[4];
      Pattern::positions(indices, positions);
      indices += Pattern::kBytes;
      __m256 inputs[kRows];
      SI_UNROLL
      for (int row = 0; row < kRows; ++row) inputs[row] = _mm256_loadu_ps(x + row * stride + step * kStep);
      SI_UNROLL
      for (int pair = 0; pair < kPairs; ++pair) {
        const __m256 weight = Value::load(values + pair * 8 * Value::kBytes);
        SI_UNROLL
        for (int row = 0; row < kRows; ++row)
          sums[row][pair] = _mm256_fmadd_ps(Pattern::pick(inputs[row], positions[kFirstPair + pair]), weight, sums[row][pair]);
      }
      values += 32 * Value::kBytes;
    }
    SI_UNROLL
    for (int row = 0; row < kRows; ++row)
      SI_UNROLL
      for (int pair = 0; pair < kPairs; ++pair) {
        float one, other;
        Pattern::sums(sums[row][pair], one, other);
        const int64_t place = strip * kStrip + (kFirstPair + pair) * 2;
        const bool scaled = p.group != 0;
        totals[row][pair][0] += scaled ? one * scale_of(p, place, group) : one;
        totals[row][pair][1] += scaled ? other * scale_of(p, place + 1, group) : other;
      }
  }
  SI_UNROLL
  for (int row = 0; row < kRows; ++row)
    SI_UNROLL
    for (int pair = 0; pair < kPairs; ++pair)
      for (int half = 0; half < 2; ++half)
        put(task, m + row, strip * kStrip + (kFirstPair + pair) * 2 + half, totals[row][pair][half]);
}

template <class Pattern, class Value, int kRows>
void nm_rows(const Task& task, int64_t first, int64_t last, int64_t m) {
  for (int64_t strip = first; strip < last; ++strip) {
    // As many sums as fit into registers: 4 pairs of rows for up to 2 rows of x, else 2 at a time.
    if constexpr (kRows <= 2) {
      nm_strip<Pattern, Value, kRows, 4, 0>(task, strip, m);
    } else {
      nm_strip<Pattern, Value, kRows, 2, 0>(task, strip, m);
      nm_strip<Pattern, Value, kRows, 2, 2>(task, strip, m);
    }
  }
}

template <class Pattern, class Value>
void nm(const Task& task, int64_t first, int64_t last) {
  // Some strips stay in the cache while all rows of x pass.
  const int64_t strip_bytes = task.packed->padded_columns() * kStrip / 2 * Value::kBytes;
  const int64_t together = task.count <= 4 ? last : strip_bytes < (1 << 18) ? (1 << 18) / strip_bytes : 1;
  for (int64_t start = first / kStrip; start < (last + kStrip - 1) / kStrip; start += together) {
    int64_t stop = start + together < (last + kStrip - 1) / kStrip ? start + together : (last + kStrip - 1) / kStrip;
    int64_t m = 0;
    for (; m + 4 <= task.count; m += 4) nm_rows<Pattern, Value, 4>(task, start, stop, m);
    switch (task.count - m) {
      case 1: nm_rows<Pattern, Value, 1>(task, start, stop, m); break;
      case 2: nm_rows<Pattern, Value, 2>(task, start, stop, m); break;
      case 3: nm_rows<Pattern, Value, 3>(task, start, stop, m); break;
      default: break;
    }
  }
}

// 2:4 in 4 bits times x in 8 bits: 16 inputs are shuffled at once for 4 rows, products summed in 16 and 32 bits.
void nibbles(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const int64_t chunks = p.padded_columns() / kInt4Columns, groups = p.groups();
  const __m256i two = _mm256_set1_epi8(3), four = _mm256_set1_epi8(15), eight = _mm256_set1_epi8(8);
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i base = _mm256_setr_epi8(0, 0, 4, 4, 8, 8, 12, 12, 0, 0, 4, 4, 8, 8, 12, 12, 0, 0, 4, 4, 8, 8, 12, 12, 0,
                                        0, 4, 4, 8, 8, 12, 12);
  const __m256i each_twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
  for (int64_t strip = first / kInt4Strip; strip * kInt4Strip < last; ++strip) {
    const uint8_t* values = p.values.data + strip * chunks * 64;
    const uint8_t* indices = p.indices.data + strip * chunks * 32;
    const uint8_t* scales = p.scales.data + strip * groups * 8;
    for (int64_t m = 0; m < task.count; ++m) {
    const int8_t* x8 = task.x8 + m * p.padded_columns();
    const float* x8_scales = task.x8_scales + m * groups;
    __m256 sums = _mm256_setzero_ps();
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      __m256i positions = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(indices + chunk * 32));
      for (int half = 0; half < 2; ++half) {
        const int64_t group = chunk * 2 + half;
        if (group >= groups) break;
        const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + chunk * 64 + half * 32));
        __m256i products = _mm256_setzero_si256();
        for (int block = 0; block < 2; ++block) {
          const __m256i x = _mm256_broadcastsi128_si256(
              _mm_loadu_si128(reinterpret_cast<const __m128i*>(x8 + group * 32 + block * 16)));
          const __m256i place = _mm256_or_si256(_mm256_and_si256(positions, two), base);
          positions = _mm256_srli_epi16(positions, 2);
          const __m256i nibble = _mm256_and_si256(block ? _mm256_srli_epi16(pairs, 4) : pairs, four);
          const __m256i weight = _mm256_sub_epi8(nibble, eight);
          const __m256i picked = _mm256_shuffle_epi8(x, place);
          // One factor must be unsigned: the weight's magnitude, with its sign given to x (which is never -128).
          const __m256i both = _mm256_maddubs_epi16(_mm256_abs_epi8(weight), _mm256_sign_epi8(picked, weight));
          products = _mm256_add_epi16(products, both);
        }
        const __m256 sum = _mm256_cvtepi32_ps(_mm256_madd_epi16(products, ones));
        const __m128 own = _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + group * 8)));
        const __m256 scale = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(own), each_twice);
        sums = _mm256_fmadd_ps(sum, _mm256_mul_ps(scale, _mm256_set1_ps(x8_scales[group])), sums);
      }
    }
    alignas(32) float each[8];
    _mm256_store_ps(each, sums);
    for (int row = 0; row < kInt4Strip; ++row) put(task, m, strip * kInt4Strip + row, each[2 * row] + each[2 * row + 1]);
    }
  }
}

// For each mask of 8 columns: which of them are set, first ones first.
struct Table {
  alignas(64) uint8_t set[256][8];
  alignas(64) uint8_t place[256][8];
  alignas(32) int32_t most[9][8];
  Table() {
    std::memset(this, 0, sizeof *this);
    for (int mask = 0; mask < 256; ++mask) {
      int count = 0;
      for (int column = 0; column < 8; ++column) {
        place[mask][column] = uint8_t(count);
        if (mask >> column & 1) set[mask][count++] = uint8_t(column);
      }
    }
    for (int count = 0; count <= 8; ++count)
      for (int lane = 0; lane < count; ++lane) most[count][lane] = -1;
  }
};
const Table& table() {
  static const Table made;
  return made;
}

float sum_of(__m256 all) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
  sum = _mm_hadd_ps(sum, sum);
  return _mm_cvtss_f32(_mm_hadd_ps(sum, sum));
}

// A strip of bitmasks times one or two rows of x: inputs are pressed together to meet the values.
template <class Value, int kRows>
void mask_strips(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const Table& tables = table();
  const int64_t steps = p.padded_columns() / kStep, stride = p.padded_columns();
  for (int64_t strip = first / kMaskStrip; strip * kMaskStrip < last; ++strip) {
    const uint8_t* values = p.values.data + size_t(start_at(p, strip)) * Value::kBytes;
    const uint8_t* masks = p.indices.data + strip * steps * 4;
    __m256 sums[kRows][4];
    SI_UNROLL
    for (int row = 0; row < kRows; ++row)
      SI_UNROLL
      for (int place = 0; place < 4; ++place) sums[row][place] = _mm256_setzero_ps();
    for (int64_t step = 0; step < steps; ++step, masks += 4) {
      __m256 inputs[kRows];
      SI_UNROLL
      for (int row = 0; row < kRows; ++row) inputs[row] = _mm256_loadu_ps(task.x + row * stride + step * kStep);
      SI_UNROLL
      for (int place = 0; place < 4; ++place) {
        const uint8_t mask = masks[place];
        const int count = __builtin_popcount(mask);
        const __m256i picks =
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(tables.set[mask])));
        // Values after the last one belong to the next row.
        const __m256 weight = _mm256_and_ps(
            Value::load(values), _mm256_castsi256_ps(_mm256_load_si256(
                                     reinterpret_cast<const __m256i*>(tables.most[count]))));
        values += count * Value::kBytes;
        SI_UNROLL
        for (int row = 0; row < kRows; ++row)
          sums[row][place] =
              _mm256_fmadd_ps(_mm256_permutevar8x32_ps(inputs[row], picks), weight, sums[row][place]);
      }
    }
    SI_UNROLL
    for (int row = 0; row < kRows; ++row)
      SI_UNROLL
      for (int place = 0; place < 4; ++place) {
        const int64_t at = strip * kMaskStrip + place;
        const float sum = sum_of(sums[row][place]);
        put(task, row, at, p.group ? sum * scale_of(p, at, 0) : sum);
      }
  }
}

// 4 dense rows of the weight times rows of x.
template <int kRows>
void dense_rows(const Task& task, const float* weight, int64_t row, int64_t m) {
  const int64_t stride = task.packed->padded_columns();
  __m256 sums[kRows][4];
  for (auto& each : sums)
    for (auto& sum : each) sum = _mm256_setzero_ps();
  for (int64_t column = 0; column < stride; column += 8) {
    __m256 weights[4];
    SI_UNROLL
    for (int place = 0; place < 4; ++place) weights[place] = _mm256_loadu_ps(weight + place * stride + column);
    SI_UNROLL
    for (int at = 0; at < kRows; ++at) {
      const __m256 x = _mm256_loadu_ps(task.x + (m + at) * stride + column);
      SI_UNROLL
      for (int place = 0; place < 4; ++place) sums[at][place] = _mm256_fmadd_ps(x, weights[place], sums[at][place]);
    }
  }
  SI_UNROLL
  for (int at = 0; at < kRows; ++at)
    SI_UNROLL
    for (int place = 0; place < 4; ++place) put(task, m + at, row + place, sum_of(sums[at][place]));
}

// Masks with many rows of x: a strip is expanded once and used for all of them.
template <class Value>
void mask_expanded(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const Table& tables = table();
  const int64_t steps = p.padded_columns() / kStep, stride = p.padded_columns();
  std::unique_ptr<float[]> dense(new float[size_t(4 * stride)]);
  const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  for (int64_t strip = first / kMaskStrip; strip * kMaskStrip < last; ++strip) {
    const uint8_t* values = p.values.data + size_t(start_at(p, strip)) * Value::kBytes;
    const uint8_t* masks = p.indices.data + strip * steps * 4;
    __m256 scales[4];
    SI_UNROLL
    for (int place = 0; place < 4; ++place)
      scales[place] = _mm256_set1_ps(p.group ? scale_of(p, strip * kMaskStrip + place, 0) : 1.0f);
    for (int64_t step = 0; step < steps; ++step, masks += 4)
      SI_UNROLL
      for (int place = 0; place < 4; ++place) {
        const uint8_t mask = masks[place];
        const __m256i wanted = _mm256_and_si256(_mm256_set1_epi32(mask), bits);
        const __m256i from =
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(tables.place[mask])));
        const __m256 spread = _mm256_permutevar8x32_ps(Value::load(values), from);
        const __m256 kept = _mm256_and_ps(spread, _mm256_castsi256_ps(_mm256_cmpeq_epi32(wanted, bits)));
        _mm256_storeu_ps(dense.get() + place * stride + step * kStep, _mm256_mul_ps(kept, scales[place]));
        values += __builtin_popcount(mask) * Value::kBytes;
      }
    int64_t m = 0;
    for (; m + 2 <= task.count; m += 2) dense_rows<2>(task, dense.get(), strip * kMaskStrip, m);
    if (m < task.count) dense_rows<1>(task, dense.get(), strip * kMaskStrip, m);
  }
}

template <class Value>
void bitmask(const Task& task, int64_t first, int64_t last) {
  if (task.count == 1) return mask_strips<Value, 1>(task, first, last);
  if (task.count == 2) return mask_strips<Value, 2>(task, first, last);
  mask_expanded<Value>(task, first, last);
}

// Rows of a CSR weight times one row of x.
template <class Value>
void csr(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  for (int64_t row = first; row < last; ++row) {
    const uint32_t start = start_at(p, row), stop = start_at(p, row + 1);
    const uint8_t* columns = p.indices.data + 2 * size_t(start);
    const uint8_t* values = p.values.data + size_t(start) * Value::kBytes;
    for (int64_t m = 0; m < task.count; ++m) {
      const float* x = task.x + m * p.columns;
      __m256 one = _mm256_setzero_ps(), other = _mm256_setzero_ps();
      uint32_t at = 0;
      const uint32_t count = stop - start;
      auto picked = [&](uint32_t number) {
        const __m256i places =
            _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(columns + 2 * size_t(number))));
        return _mm256_i32gather_ps(x, places, 4);
      };
      for (; at + 16 <= count; at += 16) {
        one = _mm256_fmadd_ps(picked(at), Value::load(values + size_t(at) * Value::kBytes), one);
        other = _mm256_fmadd_ps(picked(at + 8), Value::load(values + size_t(at + 8) * Value::kBytes), other);
      }
      float sum = sum_of(_mm256_add_ps(one, other));
      for (; at < count; ++at) {
        uint16_t column;
        std::memcpy(&column, columns + 2 * size_t(at), 2);
        alignas(32) float weights[8];
        _mm256_store_ps(weights, Value::load(values + size_t(at) * Value::kBytes));
        sum += x[column] * weights[0];
      }
      put(task, m, row, p.group ? sum * scale_of(p, row, 0) : sum);
    }
  }
}

template <class Value>
bool by_format(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const bool one_scale = p.group == 0 || p.group >= p.columns;
  switch (p.format) {
    case Format::kTwoOfFour: nm<TwoOfFour, Value>(task, first, last); return true;
    case Format::kFourOfEight: nm<FourOfEight, Value>(task, first, last); return true;
    case Format::kBitmask: if (one_scale) bitmask<Value>(task, first, last); return one_scale;
    default: if (one_scale) csr<Value>(task, first, last); return one_scale;
  }
}

}  // namespace

void multiply(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  bool done = false;
  if (!task.dense) {
    if (p.values_kind == Values::kFp32) done = by_format<Fp32>(task, first, last);
    if (p.values_kind == Values::kFp16) done = by_format<Fp16>(task, first, last);
    if (p.values_kind == Values::kInt8) done = by_format<Int8>(task, first, last);
    if (p.values_kind == Values::kInt4 && task.x8) done = (nibbles(task, first, last), true);
  }
  if (!done) portable::multiply(task, first, last);
}

}  // namespace si::avx2
