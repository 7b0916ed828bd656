// Package nvgpu is the byte layout of the attestation report of an NVIDIA GPU or
// NVLink switch: the SPDM 1.1 GET_MEASUREMENTS request followed by the
// MEASUREMENTS response, as NVML's GetConfComputeGpuAttestationReport hands it out
// (DMTF DSP0274 1.1, 10.11; the opaque fields are NVIDIA's, as its nvtrust
// verifier reads them). Start with [Parse].
//
// A report says which firmware runs on which device. It does not say that the
// GPU is in confidential mode: that the driver tells, inside the measured guest.
//
// The package checks shape alone. Signatures, certificates and whether a version
// is acceptable are the verifier's.
package nvgpu
