// Package fab reads Flower app bundles: a zip of an app's source files, with a
// manifest of their hashes in ".info/CONTENT" and the app's description in
// "pyproject.toml" (flwr.cli.build and flwr.cli.install of versions 1.26 to 1.29).
//
// A bundle comes from outside. [Parse] bounds all that it reads, refuses whatever
// an installation could mistake (paths that leave the folder, names that are there
// twice, links), and accepts only files that the manifest lists with their hash. It
// writes nothing: the process that runs the app gets the bundle's bytes, and their
// digest is what a policy lists and an owner approves.
package fab
