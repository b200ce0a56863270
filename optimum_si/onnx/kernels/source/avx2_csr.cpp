// CSR times one row of x: inputs are gathered.
#include "avx2.h"

namespace si::avx2 {
namespace {

inline __m256 gathered(const float* x, const uint8_t* columns, int64_t number) {
  return _mm256_i32gather_ps(x, _mm256_cvtepu16_epi32(load16(columns + 2 * number)), 4);
}

template <class Value>
void rows_of(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const uint8_t *values = p.values.data, *columns = p.indices.data;
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (int64_t row = first; row < last; ++row) {
    int64_t at = start_at(p, row);
    const int64_t stop = start_at(p, row + 1);
    __m256 one = _mm256_setzero_ps(), other = _mm256_setzero_ps();
    for (; at + 16 <= stop; at += 16) {
      one = _mm256_fmadd_ps(gathered(task.x, columns, at), Value::eight(values, at), one);
      other = _mm256_fmadd_ps(gathered(task.x, columns, at + 8), Value::eight(values, at + 8), other);
    }
    for (; at < stop; at += 8) {  // values and columns after the last one are of other rows
      const __m256i within = _mm256_cmpgt_epi32(_mm256_set1_epi32(int(stop - at)), lanes);
      const __m256i places = _mm256_and_si256(_mm256_cvtepu16_epi32(load16(columns + 2 * at)), within);
      const __m256 weight = _mm256_and_ps(Value::eight(values, at), _mm256_castsi256_ps(within));
      one = _mm256_fmadd_ps(_mm256_i32gather_ps(task.x, places, 4), weight, one);
    }
    const float sum = sum_of(_mm256_add_ps(one, other));
    put(task, 0, row, p.group ? sum * scale_of(p, row, 0) : sum);
  }
}

}  // namespace

void csr(const Task& task, int64_t first, int64_t last) {
  switch (task.packed->values_kind) {
    case Values::kFp32: return rows_of<Fp32>(task, first, last);
    case Values::kFp16: return rows_of<Fp16>(task, first, last);
    case Values::kInt8: return rows_of<Int8>(task, first, last);
    default: return rows_of<Int4>(task, first, last);
  }
}

}  // namespace si::avx2
