// A whole product: what x needs before kernels see it, and which kernels this machine has.
#pragma once
#include <functional>

#include "packed.h"

namespace si {

enum class Isa : int { kPortable, kAvx2, kAvx512 };

// The best that this machine runs and whose kernels passed their self-test, at most what the environment variable
// OPTIMUM_SI_ISA ("portable", "avx2") says.
Isa best_isa();
bool supported(Isa isa);

// Calls its argument for 0 .. count - 1, in any order, on any thread.
using Parallel = std::function<void(size_t count, const std::function<void(size_t)>&)>;

// y [count, rows] = x [count, columns] W^T + bias.
void product(const Packed& packed, Isa isa, const float* x, int64_t count, const float* bias, float* y,
             const Parallel& parallel);

// Whether kernels give known answers.
bool self_test(Isa isa);

}  // namespace si
