package cose

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// ReadItem reads one item of a CBOR sequence (RFC 8742): its bytes as they are,
// for [Unmarshal]. limit bounds the item in bytes and is checked before anything
// is allocated. At the end of the sequence the error is io.EOF; within an item it
// wraps io.ErrUnexpectedEOF. Indefinite lengths, tags and floats are refused.
func ReadItem(r *bufio.Reader, limit int) ([]byte, error) {
	if _, err := r.Peek(1); err != nil {
		return nil, err
	}
	s := itemReader{r: r, limit: limit}
	if err := s.item(0); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("cbor sequence: %w", err)
	}
	return s.buf, nil
}

type itemReader struct {
	r     *bufio.Reader
	limit int
	buf   []byte
}

func (s *itemReader) item(depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("%w: nested deeper than %d", ErrEncoding, maxNesting)
	}
	head, err := s.r.ReadByte()
	if err != nil {
		return err
	}
	s.buf = append(s.buf, head)
	major, n := head>>5, uint64(head&31)
	if major == 6 || major == 7 && (n < 20 || n > 22) { // tags, and all but false, true, nil
		return fmt.Errorf("%w: item of type %#02x", ErrEncoding, head)
	}
	if n > 27 || major == 7 && n > 23 {
		return fmt.Errorf("%w: item of type %#02x", ErrEncoding, head)
	}
	if n >= 24 {
		size := 1 << (n - 24)
		if err := s.bytes(uint64(size)); err != nil {
			return err
		}
		n = 0
		for _, b := range s.buf[len(s.buf)-size:] {
			n = n<<8 | uint64(b)
		}
	}
	switch major {
	case 2, 3:
		return s.bytes(n)
	case 5:
		if n > maxMap {
			return fmt.Errorf("%w: map of %d", ErrEncoding, n)
		}
		n *= 2
	case 4:
	default:
		return s.check(0)
	}
	if err := s.check(n); err != nil { // each item takes a byte at least
		return err
	}
	for range n {
		if err := s.item(depth + 1); err != nil {
			return err
		}
	}
	return nil
}

func (s *itemReader) check(more uint64) error {
	if have := uint64(len(s.buf)); more > uint64(s.limit) || have+more > uint64(s.limit) {
		return fmt.Errorf("%w: item is larger than %d bytes", ErrEncoding, s.limit)
	}
	return nil
}

// bytes appends n bytes. It allocates only for what is there.
func (s *itemReader) bytes(n uint64) error {
	if err := s.check(n); err != nil {
		return err
	}
	for n > 0 {
		step := min(n, 64<<10)
		at := len(s.buf)
		s.buf = append(s.buf, make([]byte, step)...)
		if _, err := io.ReadFull(s.r, s.buf[at:]); err != nil {
			return err
		}
		n -= step
	}
	return nil
}
