package state

import (
	"path/filepath"
	"testing"
	"time"
)

// TestServe: time counts while the federation is served, and starts anew after a break
// and after a clock that jumped.
func TestServe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "link.db")
	s := openTest(t, path, DefaultLimits)
	if err := s.Host(t.Context(), fedA, "o", 1, fedA); err != nil {
		t.Fatal(err)
	}
	if since, err := s.Served(t.Context(), fedA); err != nil || !since.IsZero() {
		t.Errorf("before it was served: %v, %v", since, err)
	}
	start := time.Unix(1_800_000_000, 0)
	for _, x := range []struct {
		after, want time.Duration // from start
		reopen      bool
	}{
		{0, 0, false}, {time.Hour, 0, false}, {25 * time.Hour, 0, true}, {24 * time.Hour, 0, false}, // set back a little
		{50 * time.Hour, 50 * time.Hour, true},                                               // 25 hours after the last: a break
		{51 * time.Hour, 50 * time.Hour, false}, {9000 * time.Hour, 9000 * time.Hour, false}, // set ahead
		{52 * time.Hour, 52 * time.Hour, false}, {53 * time.Hour, 52 * time.Hour, false}, // and back
	} {
		if x.reopen {
			s.Close()
			s = openTest(t, path, DefaultLimits)
		}
		since, err := s.Serve(t.Context(), fedA, start.Add(x.after), 24*time.Hour)
		if err != nil || !since.Equal(start.Add(x.want)) {
			t.Errorf("served at %v: since %v, %v, want %v", x.after, since.Sub(start), err, x.want)
		}
		if again, err := s.Served(t.Context(), fedA); err != nil || !again.Equal(since) {
			t.Errorf("served since %v, %v, want %v", again, err, since)
		}
	}
	if _, err := s.Serve(t.Context(), fedB, start, time.Hour); err == nil {
		t.Error("a federation that is not hosted is served")
	}
}

func TestRetirement(t *testing.T) {
	t.Parallel()
	s := hosted(t, DefaultLimits)
	ctx, run := t.Context(), fedB
	first, later := time.Unix(1000, 0), time.Unix(2000, 0)
	want := func(ended, released time.Time) {
		t.Helper()
		if r, err := s.Retirement(ctx, fedA, run); err != nil || !r.Ended.Equal(ended) || !r.Released.Equal(released) {
			t.Errorf("%+v, %v, want %v and %v", r, err, ended, released)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want(time.Time{}, time.Time{})
	do(s.PutRelease(ctx, fedA, run, first))
	want(time.Time{}, first)
	do(s.PutEnd(ctx, fedA, run, first))
	do(s.PutEnd(ctx, fedA, run, later))
	want(first, first)
	do(s.PutRelease(ctx, fedA, run, later))
	want(first, later)
	do(s.PutRelease(ctx, fedA, run, time.Time{}))
	want(first, time.Time{})
	if r, err := s.Retirement(ctx, fedB, run); err != nil || r != (Retirement{}) {
		t.Errorf("the other federation: %+v, %v", r, err)
	}
	do(s.PutAppraisal(ctx, fedA, run, false))
	do(s.PutAppraisal(ctx, fedA, run, true))
	if passed, known, err := s.Appraisal(ctx, fedA, run); passed || !known || err != nil {
		t.Errorf("appraisal: %v, %v, %v", passed, known, err)
	}
	if _, known, err := s.Appraisal(ctx, fedB, run); known || err != nil {
		t.Errorf("appraisal of the other federation: %v, %v", known, err)
	}
}
