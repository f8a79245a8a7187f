// The functions of NVIDIA's driver, looked up when the program starts, in place of the usual empty libcuda.so.
//
// A program that is linked with libcuda.so does not start on a machine without the driver. One that is linked with this
// does, and runs on its CPU: every function then returns CUDA_ERROR_NO_DEVICE. Each function is one jump through a pointer,
// so that no signature need be known; functions.h, made from cuda.h, names them as FUNCTION(cuInit).
#include <dlfcn.h>
#include <stddef.h>

enum { NO_DEVICE = 100, NOT_FOUND = 500 };

static int no_device(void) { return NO_DEVICE; }
static int not_found(void) { return NOT_FOUND; }

#if defined(__x86_64__)
#define JUMP(name) "endbr64\n\tjmp *mfpo_driver_" #name "(%rip)\n"
#elif defined(__aarch64__)
#define JUMP(name) "hint #34\n\tadrp x16, mfpo_driver_" #name "\n\tldr x16, [x16, :lo12:mfpo_driver_" #name "]\n\tbr x16\n"
#else
#error "no jump is written for this processor; link the libcuda.so of a CUDA toolkit instead"
#endif

#define FUNCTION(name)                                                                           \
  __attribute__((used, visibility("hidden"))) void *mfpo_driver_##name = (void *)no_device;      \
  __asm__(".pushsection .text." #name ",\"ax\",@progbits\n"                                      \
          "\t.globl " #name "\n\t.type " #name ", %function\n\t.p2align 4\n" #name ":\n\t"       \
          JUMP(name)                                                                             \
          "\t.size " #name ", .-" #name "\n.popsection\n");
#include "functions.h"
#undef FUNCTION

__attribute__((constructor)) static void find_driver(void) {
  void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  void *function;
  if (driver == NULL) return;
#define FUNCTION(name)                 \
  function = dlsym(driver, #name);     \
  mfpo_driver_##name = function != NULL ? function : (void *)not_found;
#include "functions.h"
}
