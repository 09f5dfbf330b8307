// Caption says what a picture shows while the model says it, then prints the boxes in pixels.
//
//	caption [-ask QUESTION] [-timeout 10s] MODEL.gguf PICTURE
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"os"
	"os/signal"

	"example.org/caption/kosmos"
)

func main() {
	question := flag.String("ask", "", "ask this after the caption")
	timeout := flag.Duration("timeout", 0, "give up after this time, as 10s; 0: never")
	parts := flag.Int("stop-after", 0, "cancel after so many parts of the text; 0: never")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: caption [-ask QUESTION] [-timeout 10s] MODEL.gguf PICTURE")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt) // Ctrl-C cancels
	defer stop()
	if *timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *timeout)
		defer cancel()
	}
	err := run(ctx, flag.Arg(0), flag.Arg(1), *question, *parts)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		fmt.Fprintln(os.Stderr, "\ncancelled:", err)
		os.Exit(130)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path, file, question string, parts int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	picture, err := open(file)
	if err != nil {
		return err
	}
	model, err := kosmos.Load(ctx, path)
	if err != nil {
		return err
	}
	defer model.Close()
	seen, err := model.Encode(ctx, picture)
	if err != nil {
		return err
	}
	defer seen.Close()

	count := 0
	stream := kosmos.Stream{Text: func(part string) {
		fmt.Print(part)
		if count++; count == parts {
			cancel()
		}
	}}
	answer, err := model.Caption(ctx, seen, stream)
	if err != nil {
		return err
	}
	fmt.Println()
	for _, phrase := range answer.Phrases {
		for _, box := range phrase.Boxes {
			fmt.Printf("%s\t%.1f %.1f %.1f %.1f\n", phrase.Text, box.X1, box.Y1, box.X2, box.Y2)
		}
	}
	if question == "" {
		return nil
	}
	if _, err := model.Ask(ctx, seen, question, stream); err != nil {
		return err
	}
	fmt.Println()
	return nil
}

// open decodes a PNG or JPEG file. Go does not turn photographs upright (EXIF): do that first where they may need it.
func open(file string) (image.Image, error) {
	reader, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	picture, _, err := image.Decode(reader)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return picture, nil
}
