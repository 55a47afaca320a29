from matching import dictionaries, measured


def test_all_true_pairs_are_found_and_no_others() -> None:
    found = measured(features=300, models=2, d_model=200, seed=3)
    assert found["found"] == 1 and found["false"] == 0
    assert found["seconds"] > 0 and found["peak_mib"] >= found["peak_mib_before"] > 0


def test_three_of_five_features_have_a_copy() -> None:
    one, other, place = dictionaries(features=500, models=1, d_model=40, seed=0)
    there = place >= 0
    assert 0.5 < float(there.float().mean()) < 0.7
    cosine = (one[there] * other[place[there]]).sum(dim=(1, 2)) / (
        one[there].norm(dim=(1, 2)) * other[place[there]].norm(dim=(1, 2))
    )
    assert float(cosine.min()) > 0.8
