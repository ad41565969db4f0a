import json

from datacomp.pools.tar import TarWriter


def test_the_doctor_measures_where_a_loader_waits(command, picture, tmp_path):
    with (tmp_path / "0.tar").open("wb") as file:
        writer = TarWriter(file)
        for i in range(20):
            writer.add(f"{i:03d}.png", picture(i))
            writer.add(f"{i:03d}.txt", b"a caption")
        writer.close()
    code, out, _ = command("doctor", tmp_path, "--scale", "demo", "--device", "cpu", "--json")
    loader = json.loads(out)["loader"]
    assert code == 0
    assert loader["reading, samples/s"] > loader["and decoding, samples/s"] > 0
    assert loader["batches of 32 px with 0 workers, samples/s"] > 0
    assert loader["training datacomp-demo on cpu in fp32, samples/s"] > 0
    assert loader["waits for"] in ("reading", "decoding", "augmentation", "model")


def test_the_doctor_refuses_a_folder_without_samples(command, tmp_path):
    code, _, err = command("doctor", tmp_path)
    assert (code, err) == (1, f"error: {tmp_path}: no .tar shards found\n")
