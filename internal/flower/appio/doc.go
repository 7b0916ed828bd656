// Package appio translates the calls of an app process into those of a flower.App, and
// back: Flower's rules are there, the transports in packages grpcapp (dialect A, flwr
// 1.26 to 1.29) and httpapp (dialect C, flwr 1.35 and later).
package appio
