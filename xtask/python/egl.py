"""Opens an EGL display without a screen, as off-screen rendering does, and prints whose it is."""

import ctypes

SURFACELESS_MESA = 0x31DD
VENDOR = 0x3053

egl = ctypes.CDLL("libEGL.so.1")
egl.eglGetPlatformDisplay.restype = ctypes.c_void_p
egl.eglGetPlatformDisplay.argtypes = [ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p]
egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
egl.eglQueryString.restype = ctypes.c_char_p
egl.eglQueryString.argtypes = [ctypes.c_void_p, ctypes.c_int]
display = egl.eglGetPlatformDisplay(SURFACELESS_MESA, None, None)
assert display, "no display"
assert egl.eglInitialize(display, None, None), "no driver"
print(egl.eglQueryString(display, VENDOR).decode())
