// A CUDA runtime without a GPU: device memory is the host's, kernels do nothing, and all that is asked for is counted.
//
// torch's own CUDA code runs on it unchanged (allocators, autograd, streams, graphs), so the counts are those of the
// real thing. Results are not: whatever a kernel would have written stays as it was. `structs.h` and `rest.inc` are
// made by fake_runtime.py: the structures as CUDA's headers have them, and functions that nothing here depends on.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <atomic>
#include <map>
#include <mutex>

#include "structs.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

struct dim3_ { unsigned x, y, z; };
typedef void* Stream;

// ---------------------------------------------------------------- what is counted

struct Counters {  // the order of fake_runtime.COUNTERS
  long launches, blas, memsets, h2d, h2d_bytes, pageable, pageable_bytes, d2h, d2d, waits, conv, graphs, captured;
};
static Counters counted;
static std::atomic<void*> capturing{nullptr};  // the stream whose work becomes a graph

EXPORT void fake_reset() { memset(&counted, 0, sizeof counted); }
EXPORT void* fake_counters() { return &counted; }

static int asked(long& of) {  // work of a capture is asked for once, when its graph is launched
  __sync_fetch_and_add(capturing ? &counted.captured : &of, 1);
  return 0;
}
static int launch() { return asked(counted.launches); }

// ---------------------------------------------------------------- memory

typedef std::map<uintptr_t, size_t> Blocks;
static std::mutex guard;
static Blocks device_blocks, pinned_blocks;
static size_t used;
static size_t limit() {
  const char* gib = getenv("FAKE_CUDA_GIB");
  return (size_t)(gib ? atoi(gib) : 80) << 30;
}
static bool within(Blocks& blocks, const void* p) {
  auto it = blocks.upper_bound((uintptr_t)p);
  if (it == blocks.begin()) return false;
  --it;
  return (uintptr_t)p < it->first + it->second;
}
static int take(Blocks& blocks, void** p, size_t n) {
  void* at = mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return 2;
  std::lock_guard<std::mutex> lock(guard);
  blocks[(uintptr_t)at] = n;
  *p = at;
  return 0;
}
static size_t give(Blocks& blocks, void* p) {
  std::lock_guard<std::mutex> lock(guard);
  auto it = blocks.find((uintptr_t)p);
  if (it == blocks.end()) return 0;
  size_t n = it->second;
  munmap(p, n);
  blocks.erase(it);
  return n;
}
EXPORT int cudaMalloc(void** p, size_t n) {
  if (used + n > limit()) return 2;
  used += n;
  return take(device_blocks, p, n);
}
EXPORT int cudaFree(void* p) { used -= give(device_blocks, p); return 0; }
EXPORT int cudaHostAlloc(void** p, size_t n, unsigned) { return take(pinned_blocks, p, n); }
EXPORT int cudaFreeHost(void* p) { give(pinned_blocks, p); return 0; }
EXPORT int cudaMemGetInfo(size_t* available, size_t* total) {
  *total = limit();
  *available = limit() - used;
  return 0;
}
struct PointerAttributes { int type, device; void *on_device, *on_host; long reserved[8]; };
EXPORT int cudaPointerGetAttributes(PointerAttributes* a, const void* p) {
  std::lock_guard<std::mutex> lock(guard);
  memset(a, 0, sizeof *a);
  bool on_device = within(device_blocks, p), pinned = within(pinned_blocks, p);
  a->type = on_device ? 2 : pinned ? 1 : 0;
  a->on_device = on_device || pinned ? (void*)p : 0;
  a->on_host = pinned ? (void*)p : 0;
  a->device = on_device ? 0 : -1;
  return 0;
}
static int copy(void* to, const void* from, size_t n) {
  bool from_device, to_device, pinned;
  {
    std::lock_guard<std::mutex> lock(guard);
    from_device = within(device_blocks, from);
    to_device = within(device_blocks, to);
    pinned = within(pinned_blocks, from);
  }
  if (!from_device && to_device) {
    counted.h2d++;
    counted.h2d_bytes += n;
    if (!pinned) {
      counted.pageable++;
      counted.pageable_bytes += n;
    }
  } else if (from_device && !to_device) {
    counted.d2h++;
  } else if (from_device) {
    asked(counted.d2d);
  }
  memcpy(to, from, n);
  return 0;
}
EXPORT int cudaMemcpy(void* to, const void* from, size_t n, int) { counted.waits++; return copy(to, from, n); }
EXPORT int cudaMemcpyAsync(void* to, const void* from, size_t n, int, Stream) { return copy(to, from, n); }
EXPORT int cudaMemsetAsync(void* p, int value, size_t n, Stream) { asked(counted.memsets); memset(p, value, n); return 0; }
EXPORT int cudaGetSymbolAddress(void** p, const void* symbol) { *p = (void*)symbol; return 0; }

// ---------------------------------------------------------------- the device

static thread_local int current = 0;
static int n_devices() { const char* n = getenv("FAKE_CUDA_DEVICES"); return n ? atoi(n) : 1; }
EXPORT int cudaGetDeviceCount(int* n) { *n = n_devices(); return 0; }
EXPORT int cudaGetDevice(int* device) { *device = current; return 0; }
EXPORT int cudaSetDevice(int device) {
  if (device < 0 || device >= n_devices()) return 101;
  current = device;
  return 0;
}
EXPORT int cudaDriverGetVersion(int* v) { *v = 13000; return 0; }
EXPORT int cudaRuntimeGetVersion(int* v) { *v = 13000; return 0; }
EXPORT int cudaGetDeviceProperties(cudaDeviceProp* p, int) {  // those of an H100
  memset(p, 0, sizeof *p);
  strcpy(p->name, "fake");
  p->totalGlobalMem = limit();
  p->sharedMemPerBlock = 49152;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->memPitch = 2147483647;
  p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->totalConstMem = 65536;
  p->major = 9;
  p->textureAlignment = 512;
  p->multiProcessorCount = 132;
  p->unifiedAddressing = p->cooperativeLaunch = 1;
  p->l2CacheSize = 50 << 20;
  p->maxThreadsPerMultiProcessor = 2048;
  p->sharedMemPerMultiprocessor = 233472;
  p->sharedMemPerBlockOptin = 232448;
  p->maxBlocksPerMultiProcessor = 32;
  return 0;
}
EXPORT int cudaDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break;  // threads of a block
    case 4: *value = 64; break;
    case 5: case 11: *value = 2147483647; break;  // blocks of a grid
    case 6: case 7: *value = 65535; break;
    case 8: *value = 49152; break;  // shared memory of a block
    case 10: case 106: *value = 32; break;  // threads of a warp, blocks of a multiprocessor
    case 12: case 82: *value = 65536; break;  // registers
    case 16: *value = 132; break;  // multiprocessors
    case 38: *value = 50 << 20; break;  // L2
    case 39: *value = 2048; break;  // threads of a multiprocessor
    case 75: *value = 9; break;  // compute capability
    case 81: *value = 233472; break;
    case 97: *value = 232448; break;
    case 41: case 95: case 115: *value = 1; break;  // unified addresses, cooperative launch, memory pools
    default: *value = 0;
  }
  return 0;
}
EXPORT int cudaDeviceGetPCIBusId(char* s, int n, int device) { snprintf(s, n, "0000:0%d:00.0", device); return 0; }
EXPORT int cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return 0;
}
EXPORT const char* cudaGetErrorString(int) { return "error of the fake runtime"; }
EXPORT const char* cudaGetErrorName(int) { return "fake"; }

// ---------------------------------------------------------------- kernels

static thread_local struct { dim3_ grid, block; size_t shared; Stream stream; } configured;
EXPORT void** __cudaRegisterFatBinary(void*) { static void* handle[4]; return handle; }
EXPORT void __cudaRegisterFatBinaryEnd(void**) {}
EXPORT void __cudaUnregisterFatBinary(void**) {}
EXPORT char __cudaInitModule(void**) { return 1; }
EXPORT void __cudaRegisterFunction(void**, const char*, char*, const char*, int, void*, void*, void*, void*, int*) {}
EXPORT void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
EXPORT unsigned __cudaPushCallConfiguration(dim3_ grid, dim3_ block, size_t shared, Stream stream) {
  configured = {grid, block, shared, stream};
  return 0;
}
EXPORT int __cudaPopCallConfiguration(dim3_* grid, dim3_* block, size_t* shared, void* stream) {
  *grid = configured.grid;
  *block = configured.block;
  *shared = configured.shared;
  *(Stream*)stream = configured.stream;
  return 0;
}
EXPORT int __cudaGetKernel(void** kernel, const void* function) { *kernel = (void*)function; return 0; }
EXPORT int __cudaLaunchKernel(void*, dim3_, dim3_, void**, size_t, Stream) { return launch(); }
EXPORT int cudaLaunchKernel(const void*, dim3_, dim3_, void**, size_t, Stream) { return launch(); }
EXPORT int cudaLaunchKernelExC(const void*, const void*, void**) { return launch(); }
EXPORT int cudaFuncGetAttributes(cudaFuncAttributes* a, const void*) {
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->numRegs = 32;
  a->ptxVersion = a->binaryVersion = 90;
  a->maxDynamicSharedSizeBytes = 49152;
  return 0;
}
EXPORT int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void*, int, size_t, unsigned) { *n = 2; return 0; }

// ---------------------------------------------------------------- streams, events, graphs

static std::atomic<uintptr_t> last_handle{0x1000};
static int made(void** handle) { *handle = (void*)(last_handle += 16); return 0; }
EXPORT int cudaStreamCreateWithFlags(Stream* s, unsigned) { return made(s); }
EXPORT int cudaStreamCreateWithPriority(Stream* s, unsigned, int) { return made(s); }
EXPORT int cudaStreamGetPriority(Stream, int* priority) { *priority = 0; return 0; }
static int waited(bool for_captured) {
  if (for_captured) return 900;  // cudaErrorStreamCaptureUnsupported: what is captured has not run
  counted.waits++;
  return 0;
}
EXPORT int cudaStreamSynchronize(Stream stream) { return waited(capturing && capturing == stream); }
EXPORT int cudaDeviceSynchronize() { return waited(capturing); }
EXPORT int cudaEventSynchronize(void*) { return waited(false); }
EXPORT int cudaEventCreate(void** event) { return made(event); }
EXPORT int cudaEventCreateWithFlags(void** event, unsigned) { return made(event); }
EXPORT int cudaEventElapsedTime(float* ms, void*, void*) { *ms = 1; return 0; }
EXPORT int cudaStreamBeginCapture(Stream stream, int) { capturing = stream ? stream : (void*)1; return 0; }
EXPORT int cudaStreamEndCapture(Stream, void** graph) { capturing = nullptr; return made(graph); }
EXPORT int cudaStreamIsCapturing(Stream stream, int* status) { *status = capturing && capturing == stream; return 0; }
EXPORT int cudaStreamGetCaptureInfo(Stream stream, int* status, unsigned long long* id, void* graph, void* nodes, void* edges, size_t* n) {
  *status = capturing && capturing == stream;
  if (id) *id = *status;
  if (graph) *(void**)graph = *status ? (void*)32 : nullptr;
  if (nodes) *(void**)nodes = nullptr;
  if (edges) *(void**)edges = nullptr;
  if (n) *n = 0;
  return 0;
}
EXPORT int cudaGraphInstantiateWithFlags(void** executable, void*, unsigned long long) { return made(executable); }
EXPORT int cudaGraphGetNodes(void*, void*, size_t* n) { if (n) *n = 1; return 0; }
EXPORT int cudaGraphLaunch(void*, Stream) { counted.graphs++; return 0; }

// ---------------------------------------------------------------- driver and libraries

static int nothing() { return 0; }
static int context(void** p) { *p = (void*)16; return 0; }
EXPORT int cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long, int* status) {
  *function = strcmp(name, "cuCtxGetCurrent") ? (void*)nothing : (void*)context;
  if (status) *status = 0;
  return 0;
}
static int object(void** handle) { *handle = calloc(1, 512); return 0; }
static int product() { return asked(counted.blas); }
EXPORT int cublasCreate_v2(void** handle) { return object(handle); }
EXPORT int cublasGetPointerMode_v2(void*, int* mode) { *mode = 0; return 0; }
EXPORT int cublasGetMathMode(void*, int* mode) { *mode = 0; return 0; }
EXPORT int cublasSgemm_v2() { return product(); }
EXPORT int cublasGemmEx() { return product(); }
EXPORT int cublasGemmStridedBatchedEx() { return product(); }
EXPORT int cublasSgemmStridedBatched() { return product(); }
EXPORT int cublasLtMatmul() { return product(); }
EXPORT size_t cublasLtGetVersion() { return 130000; }
EXPORT int cublasLtMatmulDescCreate(void** descriptor) { return object(descriptor); }
EXPORT int cublasLtMatmulPreferenceCreate(void** descriptor) { return object(descriptor); }
EXPORT int cublasLtMatrixLayoutCreate(void** descriptor) { return object(descriptor); }
EXPORT int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int, void*, int* n) { *n = 1; return 0; }
EXPORT int cudnnCreate(void** handle) { return object(handle); }
EXPORT size_t cudnnGetVersion() { return 91900; }
EXPORT size_t cudnnGetCudartVersion() { return 13000; }
EXPORT int cudnnBackendCreateDescriptor(int, void** descriptor) { return object(descriptor); }
EXPORT int cudnnBackendGetAttribute(void*, int, int type, int64_t, int64_t* n, void* value) {
  if (n) *n = 1;
  if (value && type == 3) *(int64_t*)value = 0;
  return 0;
}
EXPORT int cudnnBackendExecute() { return asked(counted.conv); }
struct UniqueId { char bytes[128]; };
EXPORT int ncclGetVersion(int* v) { *v = 22800; return 0; }
EXPORT int ncclGetUniqueId(UniqueId* id) { memset(id, 7, sizeof *id); return 0; }
EXPORT int ncclCommInitRankConfig(void** communicator, int, UniqueId, int, void*) { return object(communicator); }
EXPORT int ncclCommGetAsyncError(void*, int* error) { *error = 0; return 0; }

#include "rest.inc"
