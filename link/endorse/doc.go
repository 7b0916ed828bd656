// Package endorse fetches what hardware vendors publish for checking evidence:
// certificates and revocation lists of AMD's key distribution service, collateral
// of Intel's provisioning certification service or a PCCS, revocation status and
// reference manifests of NVIDIA.
//
// Start with [NewVendors] and [Vendors.Fetch]. It runs where there is a network:
// beside the link, or in "concordat endorsements fetch" for sites that have none.
// Nothing that it returns is believed by anyone: the verifier checks every
// document against the vendor's root. What is checked here is only that an answer
// has the shape of the document, so that a proxy's error page is not kept.
//
// A [Client] is polite: one request at a time for each host, with the distance
// that the vendor asks for, and a pause where a server says so. What never changes
// is asked for once.
package endorse
