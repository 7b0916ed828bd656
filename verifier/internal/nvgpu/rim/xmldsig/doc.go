// Package xmldsig verifies the one form of XML signature (W3C XML Signature 1.1)
// that NVIDIA's reference integrity manifests carry, and refuses every other:
// enveloped, over the whole document, Canonical XML 1.1 without comments, SHA-384,
// ECDSA on P-384 with a raw r‖s. Start with [Verify].
//
// # What it accepts
//
// A document is elements, attributes and text in printable ASCII. Refused before
// anything is parsed: references and entities (any "&"), comments, CDATA,
// document types and processing instructions (any "<!" or "<?" but one XML
// declaration), tabs and carriage returns, other encodings. Refused while
// parsing: what has more than one reading or that canonical form would have to
// rewrite: "xml:" attributes, namespaces that are empty or relative, control
// characters in attributes. What is left has a canonical form that differs
// from the document only in the order and quoting of attributes, in namespace
// declarations that repeat their parent's, and in empty elements.
//
// # Wrapping
//
// An attack on XML signatures moves the signed part aside and lets the reader
// find another one. Here there is exactly one Signature element, a child of the
// root; its one reference is to the whole document; and what [Verify] returns is
// parsed anew from the very bytes that were hashed. There is nothing else to read.
//
// The package does not judge certificates: who signed, and when, is the caller's.
package xmldsig
