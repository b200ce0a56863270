#include <memory>

#include "avx2.h"

namespace si::avx2 {
namespace {

#include "many.h"

struct Lanes {
  using Register = __m256;
  static constexpr int kCount = 8;
  static Register zero() { return _mm256_setzero_ps(); }
  static Register all(float value) { return _mm256_set1_ps(value); }
  static Register load(const float* at) { return _mm256_loadu_ps(at); }
  static void store(float* at, Register value) { _mm256_storeu_ps(at, value); }
  static Register add(Register one, Register other) { return _mm256_add_ps(one, other); }
  static Register multiply_add(Register one, Register other, Register sum) { return _mm256_fmadd_ps(one, other, sum); }
};

}  // namespace

void many(const Task& task, int64_t first, int64_t last) { many_of_kind<Lanes>(task, first, last); }

}  // namespace si::avx2
