// Package gpuhelper is how an enclave gets evidence of the NVIDIA GPUs beside it.
// NVIDIA's management library (NVML) is C and loaded at run time; the enclave is a
// static program without C. So another program of the same measured image speaks to
// NVML: the enclave starts it, writes one request to its standard input and reads one
// answer from its standard output, and both are one JSON object.
//
// The enclave's side is [Helper]; the program's is [Serve], over a [Driver].
//
//	{"version":1,"command":"evidence","nonces":["<64 hex digits>"]}
//	{"version":1,"state":{…},"gpus":[{"report":"<base64>","chain":"<base64>"}]}
//
// The commands are "state", "evidence" with a nonce for every GPU, "ready" and
// "not-ready". Every answer holds the state, taken after the command was done, or an
// error in words.
//
// What the helper says about the driver's mode is true because helper and driver are
// part of the measured image, and for no other reason. Its reports are judged by the
// GPU's own signature. Nothing here judges: package collect does.
package gpuhelper
