package fab

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/concordat/concordat/policy"
)

// The bundles in testdata are of examples/flower-quickstart, by "flwr build" of the
// version in their name; the hashes are those that flwr printed and used.
var built = map[string]string{
	"flwr-1.26.1.fab": "38a5d2d1a73e05075be36911b23c71571e4c1ddf7c50eea957f2321dfd70a67e",
	"flwr-1.29.0.fab": "2f7efea5085c9ea8e298cb3fd62e7e1b672e03343bcb1c93dcb06f4efbbf32b8",
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBundlesOfFlower(t *testing.T) {
	t.Parallel()
	for name, hash := range built {
		b, err := Parse(read(t, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if b.Hash() != hash {
			t.Errorf("%s: hash %s, Flower's is %s", name, b.Hash(), hash)
		}
		if b.ID() != "concordat/quickstart" || b.Version != "1.0.0" || b.ClientApp != "quickstart.client_app:app" || b.Strategy != "fedavg" {
			t.Errorf("%s: %+v", name, b.Project)
		}
		if want := map[string]any{"num-server-rounds": int64(3), "epochs": int64(20), "learning-rate": 1.0}; !reflect.DeepEqual(b.Config, want) {
			t.Errorf("%s: config %v, want %v", name, b.Config, want)
		}
		var names []string
		for _, f := range b.Files {
			names = append(names, f.Path)
		}
		if got := strings.Join(names, " "); got != "pyproject.toml quickstart/__init__.py quickstart/client_app.py quickstart/server_app.py quickstart/task.py" {
			t.Errorf("%s: files %s", name, got)
		}
	}
}

const project = `[project]
name = "app"
version = "1.0.0"
[tool.flwr.app]
publisher = "me"
[tool.flwr.app.components]
serverapp = "app.server:app"
clientapp = "app.client:app"
[tool.flwr.app.config]
b = true
f = 1.0
i = 3
s = "x"
nested.deep.n = 1
`

// entry is a file of a bundle; a nil manifest line is made for it.
type entry struct {
	name, text string
	mode       fs.FileMode
	method     uint16
	unlisted   bool
}

// pack makes a bundle of entries, with a manifest that is right unless one is given.
func pack(t testing.TB, manifest string, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	var lines []string
	add := func(e entry) {
		h := &zip.FileHeader{Name: e.name, Method: e.method}
		if e.mode != 0 {
			h.SetMode(e.mode)
		}
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range entries {
		add(e)
		if !e.unlisted {
			lines = append(lines, fmt.Sprintf("%s,%x,%d", e.name, sha256.Sum256([]byte(e.text)), 8*len(e.text)))
		}
	}
	if manifest == "" {
		manifest = strings.Join(lines, "\n")
	}
	add(entry{name: manifestName, text: manifest})
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHostileBundles(t *testing.T) {
	t.Parallel()
	p := entry{name: projectName, text: project}
	if _, err := Parse(pack(t, "", p, entry{name: "a,b.py", text: "x", method: zip.Deflate})); err != nil {
		t.Fatalf("the bundle that the others are made of: %v", err)
	}
	good := func(name string) entry { return entry{name: name, text: "x"} }
	toml := func(old, new string) entry {
		if !strings.Contains(project, old) {
			t.Fatalf("%q is not in the project", old)
		}
		return entry{name: projectName, text: strings.Replace(project, old, new, 1)}
	}
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("x")))
	many := []entry{p}
	for i := range maxFiles {
		many = append(many, good(fmt.Sprint(i)))
	}
	for what, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"nothing":           {nil, "zip"},
		"no zip":            {[]byte("hello"), "zip"},
		"too large":         {make([]byte, MaxSize+1), "limit"},
		"too many files":    {pack(t, "", many...), "limit"},
		"parent folder":     {pack(t, "", p, good("../x.py")), "clean relative"},
		"inner parent":      {pack(t, "", p, good("a/../../x.py")), "clean relative"},
		"absolute":          {pack(t, "", p, good("/etc/x")), "clean relative"},
		"a folder":          {pack(t, "", p, entry{name: "a/"}), "clean relative"},
		"backslash":         {pack(t, "", p, good(`..\x.py`)), "other systems"},
		"drive":             {pack(t, "", p, good("C:x.py")), "other systems"},
		"newline":           {pack(t, "", p, good("a\nb")), "other systems"},
		"no UTF-8":          {pack(t, "", p, good("a\xff")), "clean relative"},
		"long name":         {pack(t, "", p, good(strings.Repeat("a", maxName+1))), "limit"},
		"twice":             {pack(t, "", p, good("a"), good("a")), "one file"},
		"twice in case":     {pack(t, "", p, good("A"), good("a")), "one file"},
		"file and folder":   {pack(t, "", p, good("a"), good("a/b")), "folder of"},
		"symbolic link":     {pack(t, "", p, entry{name: "l", text: "/etc/passwd", mode: fs.ModeSymlink | 0o777}), "regular"},
		"device":            {pack(t, "", p, entry{name: "l", mode: fs.ModeDevice | 0o600}), "regular"},
		"bomb":              {pack(t, "", p, entry{name: "z", text: strings.Repeat("\x00", maxUnpacked+1), method: zip.Deflate}), "more than"},
		"not listed":        {pack(t, "", p, entry{name: "evil.py", text: "x", unlisted: true}), "is not in"},
		"another file":      {pack(t, "", p, entry{name: ".info/EXTRA", text: "x", unlisted: true}), "is not in"},
		"listed, not there": {pack(t, "ghost.py,"+sum+",8", p), "not a file"},
		"listed twice":      {pack(t, "a,"+sum+",8\na,"+sum+",8", p, good("a")), "twice"},
		"lists itself":      {pack(t, manifestName+","+sum+",8", p), "not a file"},
		"wrong hash":        {pack(t, "a,"+strings.Repeat("0", 64)+",8", p, good("a")), "not the file"},
		"wrong size":        {pack(t, "a,"+sum+",9", p, good("a")), "not the file"},
		"no line":           {pack(t, "a", p, good("a")), "no line"},
		"no project":        {pack(t, "", good("a")), "pyproject.toml of 0 bytes"},
		"large project":     {pack(t, "", entry{name: projectName, text: strings.Repeat("#", maxProject+1)}), "want 1 to"},
		"no TOML":           {pack(t, "", toml("[project]", "[project")), "toml"},
		"name is a path":    {pack(t, "", toml(`"app"`, `"../app"`)), "project.name"},
		"version is a path": {pack(t, "", toml(`"1.0.0"`, `"1/0"`)), "project.version"},
		"publisher":         {pack(t, "", toml(`"me"`, `"me/you"`)), "publisher"},
		"no object":         {pack(t, "", toml(`"app.client:app"`, `"os.system('x')"`)), "clientapp"},
		"config of a list":  {pack(t, "", toml("b = true", "b = [1]")), "no bool"},
		"config not finite": {pack(t, "", toml("f = 1.0", "f = nan")), "finite"},
		"config of a date":  {pack(t, "", toml("f = 1.0", "f = 2024-10-01")), "no bool"},
		"config twice":      {pack(t, "", toml("nested.deep.n = 1", "nested.deep.n = 1\n\"nested.deep\".n = 1")), "twice"},
		"negative rounds":   {pack(t, "", toml("[project]", "[tool.concordat]\nrounds = -1\n[project]")), "rounds"},
		"damaged":           {damage(pack(t, "", p, good("a"))), ""},
	} {
		_, err := Parse(c.raw)
		if !errors.Is(err, ErrBundle) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}

// damage changes a byte of a stored file's content.
func damage(raw []byte) []byte {
	i := bytes.Index(raw, []byte("publisher"))
	raw[i] ^= 1
	return raw
}

// A header may state any size: what is read counts.
func TestStatedSizeIsNotBelieved(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	text := []byte("x")
	w, err := z.CreateRaw(&zip.FileHeader{Name: "a", Method: zip.Store, CRC32: crc32.ChecksumIEEE(text), CompressedSize64: 1, UncompressedSize64: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(b.Bytes()); !errors.Is(err, ErrBundle) {
		t.Errorf("%v", err)
	}
}

func TestFuse(t *testing.T) {
	t.Parallel()
	b, err := Parse(pack(t, "", entry{name: projectName, text: project}))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"b": true, "f": 1.0, "i": int64(3), "s": "x", "nested.deep.n": int64(1)}
	if !reflect.DeepEqual(b.Config, want) {
		t.Errorf("config %v, want %v", b.Config, want)
	}
	got, err := b.Fuse(map[string]any{"i": 0.5, "nested.deep.n": int64(2), "concordat.strategy": "fedavg"})
	want = map[string]any{"b": true, "f": 1.0, "i": 0.5, "s": "x", "nested.deep.n": int64(2), "concordat.strategy": "fedavg"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if !maps.Equal(b.Config, map[string]any{"b": true, "f": 1.0, "i": int64(3), "s": "x", "nested.deep.n": int64(1)}) {
		t.Error("the app's own config was changed")
	}
	for _, bad := range []map[string]any{{"nested": "x"}, {"new": true}, {"i": []byte{1}}, {"s": strings.Repeat("x", maxConfigKV+1)}} {
		if _, err := b.Fuse(bad); err == nil {
			t.Errorf("override %v was taken", bad)
		}
	}
}

func TestTerms(t *testing.T) {
	t.Parallel()
	adam := Project{Strategy: "fedadam", Arguments: map[string]any{"eta": 0.5, "tau": 0.1}}
	for _, c := range []struct {
		project Project
		config  map[string]any
		want    Terms
		bad     string
	}{
		{Project{Strategy: "fedavg"}, map[string]any{KeyFlowerRounds: int64(3)}, Terms{Strategy: "fedavg", Rounds: 3}, ""},
		{Project{Strategy: "fedavg", Rounds: 5}, map[string]any{KeyFlowerRounds: int64(3)}, Terms{Strategy: "fedavg", Rounds: 5}, ""},
		{adam, map[string]any{policy.KeyRounds: int64(2)}, Terms{Strategy: "fedadam", Rounds: 2, Arguments: map[string]any{"eta": 0.5, "tau": 0.1}}, ""},
		{adam, map[string]any{policy.KeyRounds: int64(2), "concordat.eta": 0.2, "concordat.train.eta": 7}, Terms{Strategy: "fedadam", Rounds: 2, Arguments: map[string]any{"eta": 0.2, "tau": 0.1}}, ""},
		{adam, map[string]any{policy.KeyRounds: int64(2), policy.KeyStrategy: "fedavg"}, Terms{Strategy: "fedavg", Rounds: 2}, ""},
		{Project{}, map[string]any{KeyFlowerRounds: int64(3)}, Terms{}, "names no native strategy"},
		{Project{Strategy: "fedavg"}, nil, Terms{}, "how many rounds"},
		{Project{Strategy: "fedavg"}, map[string]any{KeyFlowerRounds: int64(0)}, Terms{}, "above 0"},
		{Project{Strategy: "fedavg"}, map[string]any{KeyFlowerRounds: "3"}, Terms{}, "above 0"},
		{Project{}, map[string]any{policy.KeyStrategy: true}, Terms{}, "no string"},
		{Project{Strategy: "fedavg", Rounds: 1, Frozen: "emb,enc.*"}, nil, Terms{Strategy: "fedavg", Rounds: 1, Frozen: "emb,enc.*"}, ""},
		{Project{Strategy: "fedavg", Rounds: 1, Frozen: "emb"}, map[string]any{policy.KeyStrategy: "fedadam", policy.KeyFrozen: "enc"}, Terms{Strategy: "fedadam", Rounds: 1, Frozen: "enc"}, ""},
		{Project{Strategy: "fedavg", Rounds: 1, Frozen: "emb"}, map[string]any{policy.KeyFrozen: ""}, Terms{Strategy: "fedavg", Rounds: 1}, ""},
		{Project{Strategy: "fedavg", Rounds: 1}, map[string]any{policy.KeyFrozen: int64(1)}, Terms{}, "no string"},
	} {
		got, err := c.project.Terms(c.config, "")
		if c.bad == "" && (err != nil || got.Strategy != c.want.Strategy || got.Rounds != c.want.Rounds || got.Frozen != c.want.Frozen || !maps.Equal(got.Arguments, c.want.Arguments)) || c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)) {
			t.Errorf("%+v with %v: %+v, %v", c.project, c.config, got, err)
		}
	}
}

func TestConcordatTable(t *testing.T) {
	t.Parallel()
	parse := func(table string) (Project, error) {
		return parseProject([]byte(strings.Split(project, "[tool.concordat]")[0] + "\n[tool.concordat]\n" + table))
	}
	p, err := parse("strategy = \"fedadam\"\nrounds = 4\neta = 0.5\nnum = 2\n")
	if err != nil || p.Strategy != "fedadam" || p.Rounds != 4 || !maps.Equal(p.Arguments, map[string]any{"eta": 0.5, "num": int64(2)}) {
		t.Errorf("%+v, %v", p, err)
	}
	for table, want := range map[string]string{`frozen = ["emb", "enc.*"]`: "emb,enc.*", `frozen = "emb, enc.*"`: "emb, enc.*", "frozen = []": ""} {
		if p, err := parse(table); err != nil || p.Frozen != want || len(p.Arguments) > 0 {
			t.Errorf("%s: %+v, %v", table, p, err)
		}
	}
	for _, bad := range []string{"rounds = -1", "rounds = 1.5", "strategy = 3", "eta = [1]", "eta = nan", "frozen = true", "frozen = [1]", `frozen = ["a,b"]`, `frozen = [""]`} {
		if _, err := parse(bad); !errors.Is(err, ErrBundle) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for name := range built {
		f.Add(read(f, name))
	}
	f.Add(pack(f, "", entry{name: projectName, text: project}, entry{name: "a,b.py", text: "x", method: zip.Deflate}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := Parse(raw)
		if err != nil {
			if !errors.Is(err, ErrBundle) {
				t.Errorf("%v is no ErrBundle", err)
			}
			return
		}
		if b.Digest != sha256.Sum256(raw) || len(b.Files) == 0 {
			t.Error("a bundle without a digest or files")
		}
		for _, file := range b.Files {
			if !fs.ValidPath(file.Path) || strings.HasPrefix(file.Path, "..") {
				t.Errorf("path %q", file.Path)
			}
		}
	})
}
