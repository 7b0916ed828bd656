// Package rim reads NVIDIA's reference integrity manifests: SWID tags (ISO/IEC
// 19770-2:2015, with the attributes of TCG's RIM information model) that say which
// measurements one version of a driver, or of a VBIOS, may have. Start with
// [Parse]; compare with [Match].
//
// Parse checks the signature by the key that the manifest brings. Whether that
// key is NVIDIA's is its caller's to judge, from [Manifest.Chain].
package rim
