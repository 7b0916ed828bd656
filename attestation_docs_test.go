package concordat_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestChecksAreDocumented: an operator who is shown the name of a check finds it in the
// page of its platform.
func TestChecksAreDocumented(t *testing.T) {
	t.Parallel()
	for dir, c := range map[string]struct {
		page  string
		least int // names that there surely are: the search below finds them
	}{
		"verifier/internal/snp":    {"docs/attestation-snp.md", 35},
		"verifier/internal/tdx":    {"docs/attestation-tdx.md", 35},
		"verifier/internal/tpm":    {"docs/attestation-tpm.md", 10},
		"verifier/internal/nvgpu":  {"docs/attestation-nvidia.md", 15},
		"verifier/internal/events": {"docs/attestation-tdx.md", 2},
		"verifier":                 {"docs/attestation.md", 8},
	} {
		b, err := os.ReadFile(c.page)
		if err != nil {
			t.Fatal(err)
		}
		names := checkNames(t, dir)
		if len(names) < c.least {
			t.Errorf("%s: found %d names of checks, want at least %d: %q", dir, len(names), c.least, names)
		}
		for _, n := range names {
			if !regexp.MustCompile("`([a-z]+(\\[…\\])?\\.)?" + regexp.QuoteMeta(n) + "(\\[N\\])?`").Match(b) {
				t.Errorf("%s does not say what the check %q is about", c.page, n)
			}
		}
	}
}

// recorders are the functions that name a check, and which argument is its name.
var recorders = map[string]int{
	"Pass": 0, "Fail": 0, "Missing": 0, "Unsupported": 0, "NotChecked": 0, "That": 1, // of check.Recorder
	"atLeast": 0, "key": 0, "inForce": 0, "list": 0, "checkFloor": 1, "recordRevocation": 0, "same": 1,
}

// checkNames reads the names of checks out of a package's source: the literals that are
// handed to the functions above, and constants whose name begins with "name".
func checkNames(t *testing.T, dir string) []string {
	t.Helper()
	form := regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	found := map[string]bool{}
	take := func(e ast.Expr) {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil && form.MatchString(s) {
				found[s] = true
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				name := ""
				switch f := n.Fun.(type) {
				case *ast.SelectorExpr:
					name = f.Sel.Name
				case *ast.Ident:
					name = f.Name
				}
				if i, ok := recorders[name]; ok && i < len(n.Args) {
					take(n.Args[i])
				}
			case *ast.ValueSpec:
				for i, id := range n.Names {
					if strings.HasPrefix(id.Name, "name") && i < len(n.Values) && n.Type == nil {
						take(n.Values[i])
					}
				}
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(found))
}
