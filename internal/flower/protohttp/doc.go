// Package protohttp serves calls as Flower does from version 1.35 on: protobuf in the
// body of an HTTP POST (flwr/supercore/protobuf in the installed package). Start with
// [Handler].
package protohttp
