package concordat_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// page is one Markdown file: its lines, and the fenced blocks among them.
type page struct {
	path   string
	lines  []string // with the lines of fenced blocks emptied
	blocks []block
}

type block struct {
	line  int // of its first line, from 1
	lang  string
	lines []string
}

// pages reads every Markdown file of the project.
func pages(t *testing.T) []*page {
	t.Helper()
	var all []*page
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (path == "bin" || path == "out" || strings.HasPrefix(path, ".git")) {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		b, err := os.ReadFile(path)
		all = append(all, parsePage(path, string(b)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found %d pages: is this the repository's root?", len(all))
	}
	return all
}

func parsePage(path, text string) *page {
	p := &page{path: path, lines: strings.Split(text, "\n")}
	var open *block
	for i, l := range p.lines {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(l), "```")
		switch {
		case isFence && open == nil:
			open = &block{line: i + 2, lang: fence}
		case isFence:
			p.blocks = append(p.blocks, *open)
			open = nil
		case open != nil:
			open.lines = append(open.lines, l)
		default:
			continue
		}
		p.lines[i] = ""
	}
	return p
}

func (p *page) at(line int) string { return fmt.Sprintf("%s:%d", p.path, line) }

// commands returns the lines of the page's shell blocks, with continued lines joined
// and comments gone, by line number.
func (p *page) commands() map[int]string {
	out := make(map[int]string)
	for _, b := range p.blocks {
		if b.lang != "sh" {
			continue
		}
		start, whole := 0, ""
		for i, l := range b.lines {
			if whole == "" {
				start = b.line + i
			}
			if i := strings.Index(l, " #"); i >= 0 {
				l = l[:i]
			}
			if l, more := strings.CutSuffix(strings.TrimSpace(l), `\`); more {
				whole += l + " "
				continue
			}
			if whole += strings.TrimSpace(l); whole != "" && whole[0] != '#' {
				out[start] = whole
			}
			whole = ""
		}
	}
	return out
}

var linkForm = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks follows every relative link, to its heading too.
func TestLinks(t *testing.T) {
	t.Parallel()
	all := pages(t)
	headings := make(map[string][]string)
	for _, p := range all {
		headings[p.path] = p.headings()
	}
	for _, p := range all {
		for i, l := range p.lines {
			for _, m := range linkForm.FindAllStringSubmatch(l, -1) {
				if strings.Contains(m[1], "://") {
					continue
				}
				file, anchor, _ := strings.Cut(m[1], "#")
				target := p.path
				if file != "" {
					target = filepath.Join(filepath.Dir(p.path), file)
				}
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s: link to %s: %v", p.at(i+1), m[1], err)
				} else if anchor != "" && !slices.Contains(headings[target], anchor) {
					t.Errorf("%s: %s has no heading %q; it has %q", p.at(i+1), target, anchor, headings[target])
				}
			}
		}
	}
}

// headings returns the anchors of a page's headings, as code hosts make them.
func (p *page) headings() (out []string) {
	for _, l := range p.lines {
		title := strings.TrimLeft(l, "#")
		if len(title) == len(l) {
			continue
		}
		slug := strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, strings.TrimSpace(title))
		out = append(out, slug)
	}
	return out
}

var makeForm = regexp.MustCompile("(?:^|`|\\s)make ([a-z][a-z-]*)")

// TestMakeTargets finds every target that a page has its reader make.
func TestMakeTargets(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	check := func(where, text string, form *regexp.Regexp) {
		for _, m := range form.FindAllStringSubmatch(text, -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
				t.Errorf("%s: the Makefile has no target %s", where, m[1])
			}
		}
	}
	inline := regexp.MustCompile("`make ([a-z][a-z-]*)")
	for _, p := range pages(t) {
		for i, l := range p.lines {
			check(p.at(i+1), l, inline)
		}
		for line, c := range p.commands() {
			check(p.at(line), c, makeForm)
		}
	}
}

// program is a program of ours that pages show in use.
type program struct{ name, path string }

// build makes the programs that command lines are tried on.
func build(t *testing.T) []program {
	t.Helper()
	dir := t.TempDir()
	programs := []program{{"concordat", ""}, {"concordat-enclave", ""}}
	for i := range programs {
		p := &programs[i]
		p.path = filepath.Join(dir, p.name)
		c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", p.path, "./cmd/"+p.name)
		c.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build: the cache has it
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return programs
}

// TestCommandLines has the programs parse every command line of the pages: with
// --help at its end, so that nothing runs.
func TestCommandLines(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short: builds the programs")
	}
	programs := build(t)
	tried := 0
	for _, p := range pages(t) {
		for line, c := range p.commands() {
			words := split(c)
			i := slices.IndexFunc(programs, func(x program) bool { return words[0] == x.name || words[0] == "bin/"+x.name })
			if i < 0 {
				continue
			}
			if err := programs[i].parses(words[1:]); err != nil {
				t.Errorf("%s: %s: %v", p.at(line), c, err)
			}
			tried++
		}
	}
	if tried < 10 {
		t.Errorf("tried %d command lines: the pages have more", tried)
	}
	if err := programs[0].parses([]string{"policy", "sing"}); err == nil {
		t.Error("a sub-command that does not exist was accepted")
	}
	if err := programs[0].parses([]string{"policy", "sign", "--no-such-flag"}); err == nil {
		t.Error("a flag that does not exist was accepted")
	}
}

// split cuts a shell line into words: at spaces outside of quotes, without the quotes.
func split(line string) (words []string) {
	var word strings.Builder
	var quote rune
	open := false // a word has begun
	for _, r := range line + " " {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, open = r, true
		case quote == 0 && r == ' ':
			if open {
				words = append(words, word.String())
				word.Reset()
			}
			open = false
		default:
			word.WriteRune(r)
			open = true
		}
	}
	return words
}

var (
	redirect  = regexp.MustCompile(`^(\||>|2>|&&|;|&)`)
	usageForm = regexp.MustCompile(`(?m)^Usage:\s+(\S.*)$`)
	wordForm  = regexp.MustCompile(`^[a-z][a-z-]*$`)
)

// parses says why the program does not take the words.
func (p program) parses(words []string) error {
	if i := slices.IndexFunc(words, redirect.MatchString); i >= 0 {
		words = words[:i]
	}
	out, err := exec.Command(p.path, append(slices.Clone(words), "--help")...).CombinedOutput()
	if p.name != "concordat" { // package flag: help is the list of flags
		for _, w := range words {
			flag, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
			if w[0] == '-' && !regexp.MustCompile(`(?m)^\s*--?`+regexp.QuoteMeta(flag)+`\b`).Match(out) {
				return fmt.Errorf("has no flag %s", w)
			}
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	// Help for a command with sub-commands is help that was asked for by nobody: the
	// word after it was not one of them.
	m := usageForm.FindStringSubmatch(string(out))
	if m == nil {
		return fmt.Errorf("prints no usage: %.200s", out)
	}
	depth := 0
	for _, w := range strings.Fields(m[1])[1:] {
		if !wordForm.MatchString(w) {
			break
		}
		if depth >= len(words) || words[depth] != w {
			return fmt.Errorf("is taken for %q", m[1])
		}
		depth++
	}
	if bytes.Contains(out, []byte("Available Commands:")) && depth < len(words) && wordForm.MatchString(words[depth]) {
		return fmt.Errorf("there is no %q", strings.Join(words[:depth+1], " "))
	}
	return nil
}

// TestNamedTestsExist looks for every test that a page says shows something.
func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	have := make(map[string]bool)
	form := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range form.FindAllSubmatch(b, -1) {
			have[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w+)`")
	for _, p := range pages(t) {
		for i, l := range p.lines {
			for _, m := range named.FindAllStringSubmatch(l, -1) {
				if !have[m[1]] {
					t.Errorf("%s: there is no %s", p.at(i+1), m[1])
				}
			}
		}
	}
}
