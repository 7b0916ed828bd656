// Package flwrproto is Flower's wire: the messages and the service ClientAppIo
// of flwr 1.26 to 1.29, generated from definitions written anew from their field
// numbers. The proto package and the service keep Flower's names, which are on
// the wire.
//
// Objects are hashed in an encoding of their own, chunkstore/object: never hash
// or sign what this package marshals.
package flwrproto
