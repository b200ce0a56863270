// CSR times one row of x.
#pragma once
#include "strips-inl.h"
#include "values-inl.h"

namespace si::SI_TARGET {
namespace {

// Inputs of 4 columns. One by one: the gather instruction of Zen 1 takes twice as long.
inline __m128 gather(const float* x, const uint8_t* columns) {
  uint64_t four;
  std::memcpy(&four, columns, 8);
  __m128 picked = _mm_load_ss(x + (four & 0xffff));
  picked = _mm_insert_ps(picked, _mm_load_ss(x + (four >> 16 & 0xffff)), 0x10);
  picked = _mm_insert_ps(picked, _mm_load_ss(x + (four >> 32 & 0xffff)), 0x20);
  return _mm_insert_ps(picked, _mm_load_ss(x + (four >> 48)), 0x30);
}

template <class Value>
void multiply_csr_rows(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const Scales scales(p);
  const uint8_t *values = p.values.data, *columns = p.indices.data;
  for (int64_t row = first; row < last; ++row) {
    int64_t at = start_at(p, row);
    const int64_t stop = start_at(p, row + 1);
    __m128 one = _mm_setzero_ps(), other = _mm_setzero_ps(), weights[2];
    for (; at + 8 <= stop; at += 8) {
      prefetch<8 * Value::kBits / 8>(values + at * Value::kBits / 8);
      Value::load(values, at, weights[0], weights[1]);
      one = _mm_fmadd_ps(gather(task.x, columns + 2 * at), weights[0], one);
      other = _mm_fmadd_ps(gather(task.x, columns + 2 * at + 8), weights[1], other);
    }
    __m128 sums = _mm_add_ps(one, other);
    sums = _mm_hadd_ps(sums, sums);
    float sum = _mm_cvtss_f32(_mm_hadd_ps(sums, sums));
    alignas(32) float left[8];
    _mm256_store_ps(left, Value::load(values, at));
    for (int64_t index = 0; index < stop - at; ++index) sum += task.x[column_at(p, at + index)] * left[index];
    store(task, 0, row, sum * scales.one(row, 0));
  }
}

inline void multiply_csr(const Task& task, int64_t first, int64_t last) {
  with_dtype(task.packed->dtype, [&](auto value) { multiply_csr_rows<decltype(value)>(task, first, last); });
}

}  // namespace
}  // namespace si::SI_TARGET
