// Memory from the beginning of a cache line on, so that no register is read from two of them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>

#include "target.h"

namespace si::SI_TARGET {
namespace {

template <class Number>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(int64_t count) : all_(::operator new(size_t(count) * sizeof(Number) + kLine)) {
    // By hand: aligned allocation leaves holes that the next one must look for.
    first_ = reinterpret_cast<Number*>((reinterpret_cast<uintptr_t>(all_) + kLine - 1) / kLine * kLine);
  }
  AlignedBuffer(AlignedBuffer&& other) { *this = static_cast<AlignedBuffer&&>(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) {
    ::operator delete(all_);
    all_ = other.all_, first_ = other.first_;
    other.all_ = other.first_ = nullptr;
    return *this;
  }
  ~AlignedBuffer() { ::operator delete(all_); }
  Number* get() const { return first_; }

 private:
  static constexpr size_t kLine = 64;
  void* all_ = nullptr;
  Number* first_ = nullptr;
};

}  // namespace
}  // namespace si::SI_TARGET
