// What a file is compiled for. Algorithms (*-inl.h) are compiled again for each instruction set, with flags of its own.
// All that a target's file defines lies in a namespace of its name, and in an unnamed one inside where nobody else calls
// it: functions of one name would be merged by the linker, and a machine given instructions that it lacks. For the same
// reason these files call no function template or inline function of the standard library.
#pragma once

#if !defined(SI_TARGET)
#define SI_TARGET portable  // what every machine runs
#endif

// Compilers are not to leave a call in the innermost loop.
#define SI_INLINE inline __attribute__((always_inline))

// The innermost loops of large functions, whose registers must not be spilled for what stands around them.
#define SI_NOINLINE __attribute__((noinline))

#if defined(__clang__)
#define SI_UNROLL _Pragma("clang loop unroll(full)")
#define SI_UNROLL_2 _Pragma("clang loop unroll_count(2)")
#else
#define SI_UNROLL _Pragma("GCC unroll 8")
#define SI_UNROLL_2 _Pragma("GCC unroll 2")
#endif
