"""Tiny data sets in the exact form of each public one, as its readers' recipes name them.

Each function writes into a folder and returns the node of its source. Films are 32 wide and 24 high, so that no reader can
mistake rows for columns; the same rectangle is marked on all.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from zoo.data.io.masks import encode_mask

HEIGHT, WIDTH = 24, 32
BOX = (4, 6, 20, 18)
"""Left, top, right, bottom of what is marked."""
Node = dict[str, Any]


def film(seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(20, 90, (HEIGHT, WIDTH), dtype=np.uint8)
    left, top, right, bottom = BOX
    pixels[top:bottom, left:right] += 120
    return pixels


def marked() -> np.ndarray:
    """The mask of the rectangle."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    left, top, right, bottom = BOX
    mask[top:bottom, left:right] = True
    return mask


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(film(seed)).save(path)
    return path


def dicom(path: Path, seed: int = 0, pixels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = film(seed) if pixels is None else pixels
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", pydicom.uid.generate_uid()
    dataset.PatientID, dataset.Modality = "", "CR"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


def runs(mask: np.ndarray, *, relative: bool, column_major: bool, first: int) -> str:
    """Run lengths of a mask, pixel by pixel."""
    words, end, position, flat = [], 0, 0, (mask.T if column_major else mask).ravel().tolist()
    while position < len(flat):
        if flat[position]:
            start = position
            while position < len(flat) and flat[position]:
                position += 1
            words += [start - end + first if relative else start + first, position - start]
            end = position
        else:
            position += 1
    return " ".join(map(str, words))


CHEXPERT_HEADER = (
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,"
    "Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)


def mimic_cxr_jpg(folder: Path) -> Node:
    """Six patients; effusion is present, absent, uncertain and not mentioned, in the tables' order of columns."""
    splits, labels = ["dicom_id,study_id,subject_id,split"], [CHEXPERT_HEADER]
    metadata = ["dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns"]
    effusion = ["1.0", "0.0", "-1.0", "", "1.0", "0.0", "1.0", "0.0"]
    names = ["train", "train", "train", "train", "validate", "validate", "test", "test"]
    for index, (split, value) in enumerate(zip(names, effusion, strict=True)):
        subject, study = 10000030 + index, 50000000 + index
        for view in ("PA", "LATERAL"):
            dicom_id = f"{index:08x}-00000000-0000000{len(view)}"
            splits.append(f"{dicom_id},{study},{subject},{split}")
            metadata.append(f"{dicom_id},{subject},{study},CHEST (PA AND LAT),{view},{HEIGHT},{WIDTH}")
            place = folder / "files" / f"p{str(subject)[:2]}" / f"p{subject}" / f"s{study}"
            picture(place / f"{dicom_id}.jpg", index)
        report = (
            " FINAL REPORT\n EXAMINATION: CHEST\n\n FINDINGS:\n\n There is an\n effusion.\n\n IMPRESSION:  Effusion.\n"
        )
        text(place.with_suffix(".txt"), report)
        labels.append(f"{subject},{study},,0.0,,,,,,,{'1.0' if index == 1 else ''},{value},,,{index % 2}.0,")
    text(folder / "mimic-cxr-2.0.0-split.csv.gz", "\n".join(splits) + "\n")
    text(folder / "mimic-cxr-2.0.0-chexpert.csv.gz", "\n".join(labels) + "\n")
    text(folder / "mimic-cxr-2.0.0-metadata.csv.gz", "\n".join(metadata) + "\n")
    return {"name": "mimic_cxr_jpg", "folder": str(folder), "views": ["PA", "AP"]}


def vindr_cxr(folder: Path) -> Node:
    """Three radiologists a training image, of whom two mark an effusion on the even ones, and a consensus for the test."""
    left, top, right, bottom = BOX
    train = ["image_id,rad_id,class_name,x_min,y_min,x_max,y_max"]
    test = ["image_id,class_name,x_min,y_min,x_max,y_max"]
    for index in range(6):
        dicom(folder / "train" / f"train{index}.dicom", index)
        for reader in ("R8", "R9", "R10"):
            name = "Pleural effusion" if index % 2 == 0 and reader != "R10" else "No finding"
            corners = f"{left},{top}.5,{right},{bottom}" if name != "No finding" else ",,,"
            train.append(f"train{index},{reader},{name},{corners}")
    train.append(f"train0,R10,Cardiomegaly,{left},{top},{right},{bottom}")
    for index in range(2):
        dicom(folder / "test" / f"test{index}.dicom", index)
        test.append(f"test{index},Pleural effusion,{left},{top},{right},{bottom}" if index else "test0,No finding,,,,")
    text(folder / "annotations" / "annotations_train.csv", "\n".join(train) + "\n")
    text(folder / "annotations" / "annotations_test.csv", "\n".join(test) + "\n")
    return {"name": "vindr_cxr", "folder": str(folder)}


def rsna_pneumonia(folder: Path) -> Node:
    """Ten images; every other has pneumonia, the first in two boxes."""
    left, top, right, bottom = BOX
    rows = ["patientId,x,y,width,height,Target"]
    for index in range(10):
        dicom(folder / "stage_2_train_images" / f"id-{index}.dcm", index)
        box = f"{left}.0,{top}.0,{right - left}.0,{bottom - top}.0"
        rows.append(f"id-{index},,,,,0" if index % 2 else f"id-{index},{box},1")
    rows.append("id-0,24.0,2.0,4.0,4.0,1")
    text(folder / "stage_2_train_labels.csv", "\n".join(rows) + "\n")
    return {"name": "rsna_pneumonia", "folder": str(folder)}


def siim_acr(folder: Path, side: int = 32) -> Node:
    """Square films in Kaggle's nested folders; every other has a mask, the first in two rows; a space before each -1 and in the header."""
    rows = ["ImageId, EncodedPixels"]
    mask = np.zeros((side, side), dtype=bool)
    mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    variant = {"relative": True, "column_major": True, "first": 0}
    for index in range(6):
        name = f"1.2.276.0.7230010.3.1.4.8323329.{index}"
        pixels = np.where(mask, 200, 40).astype(np.uint8)
        dicom(folder / "dicom-images-train" / f"a{index}" / f"b{index}" / f"{name}.dcm", pixels=pixels)
        if index % 2:
            rows.append(f"{name}, -1")
        elif index == 0:
            halves = mask.copy(), mask.copy()
            halves[0][:, 10:], halves[1][:, :10] = False, False
            rows += [f"{name}, {runs(half, **variant)}" for half in halves]
        else:
            rows.append(f"{name}, {runs(mask, **variant)}")
    text(folder / "train-rle.csv", "\n".join(rows) + "\n")
    return {
        "name": "siim_acr",
        "table": str(folder / "train-rle.csv"),
        "images": str(folder / "dicom-images-train"),
        "side": side,
    }


def chexmask(folder: Path) -> Node:
    """Lungs and heart of four films that are here and one that is not; the last mask is poor."""
    variant = {"relative": False, "column_major": False, "first": 1}
    lung, heart = np.zeros((HEIGHT, WIDTH), bool), marked()
    lung[2:20, 20:30] = True
    rows = ["dicom_id,Dice RCA (Max),Dice RCA (Mean),Landmarks,Left Lung,Right Lung,Heart,Height,Width"]
    for index in range(6):
        if index != 4:
            picture(folder / "films" / f"p{index}" / f"film-{index}.jpg", index)
        encoded = ",".join(runs(mask, **variant) for mask in (lung, lung[:, ::-1], heart))
        rows.append(f'film-{index},0.9,{0.5 if index == 5 else 0.8},"[[1 2]\n [3 4]]",{encoded},{HEIGHT},{WIDTH}')
    text(folder / "MIMIC-CXR-JPG.csv", "\n".join(rows) + "\n")
    return {"name": "chexmask", "table": str(folder / "MIMIC-CXR-JPG.csv"), "images": str(folder / "films")}


def medmnist(folder: Path, name: str = "pneumoniamnist", channels: int = 1, labels: int = 1) -> Node:
    """Files of a few images each."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 6), ("val", 4), ("test", 4)):
        shape = (count, 28, 28, 3) if channels == 3 else (count, 28, 28)
        arrays[f"{split}_images"] = rng.integers(0, 255, shape, dtype=np.uint8)
        values = np.arange(count)[:, None] % 2 if labels == 1 else rng.integers(0, 2, (count, labels))
        arrays[f"{split}_labels"] = values.astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{name}.npz", **arrays)
    return {"name": "medmnist", "file": str(folder / f"{name}.npz")}


def mask_images(folder: Path) -> Node:
    """``images/`` and ``masks/`` with the same names, by split; one image without a mask."""
    for split, count in (("train", 3), ("val", 2), ("test", 2)):
        for index in range(count):
            picture(folder / split / "images" / f"{index}.png", index)
            if (split, index) != ("train", 2):
                (folder / split / "masks").mkdir(exist_ok=True)
                Image.fromarray(marked().astype(np.uint8) * 255).save(folder / split / "masks" / f"{index}.png")
    return {
        "name": "mask_images",
        "images": f"{folder}/{{split}}/images",
        "masks": f"{folder}/{{split}}/masks",
        "target": "polyp",
    }


def coco_instances(folder: Path) -> Node:
    """Polygons, an uncompressed and a compressed run length, and a box without a mask."""
    left, top, right, bottom = BOX
    polygon = [left, top, right, top, right, bottom, left, bottom]
    counts = [
        int(c) for c in np.diff(np.flatnonzero(np.diff(np.concatenate([[2], marked().T.ravel().astype(int), [2]]))))
    ]
    if marked().T.ravel()[0]:
        counts = [0, *counts]
    segmentations = [
        ([polygon], 0),
        ({"size": [HEIGHT, WIDTH], "counts": counts}, 1),
        (encode_mask(marked()), 1),
    ]
    for split in ("train", "val", "test"):
        images, annotations = [], []
        for index, (segmentation, crowd) in enumerate(segmentations):
            picture(folder / split / f"{index:012d}.png", index)
            images.append({"id": index + 7, "file_name": f"{index:012d}.png", "height": HEIGHT, "width": WIDTH})
            item = {"id": 100 + index, "image_id": index + 7, "category_id": 3, "iscrowd": crowd}
            box = [left, top, right - left, bottom - top]
            annotations.append({**item, "segmentation": segmentation, "bbox": box, "area": 192})
        annotations.append(
            {"id": 200, "image_id": 7, "category_id": 9, "iscrowd": 0, "segmentation": [], "bbox": [1, 1, 4, 4]}
        )
        categories = [{"id": 3, "name": "polyp"}, {"id": 9, "name": "instrument"}]
        content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        text(folder / "annotations" / f"instances_{split}.json", json.dumps(content))
    return {
        "name": "coco_instances",
        "annotations": f"{folder}/annotations/instances_{{split}}.json",
        "images": f"{folder}/{{split}}",
    }


def run_length_table(folder: Path) -> Node:
    """Kaggle's usual form: absolute from 1, down the columns, a row for each image and class."""
    rows = ["ImageId,ClassId,EncodedPixels,patient,split"]
    variant = {"relative": False, "column_major": True, "first": 1}
    for index in range(6):
        picture(folder / "films" / f"{index}.png", index)
        split = ("train", "train", "train", "val", "test", "test")[index]
        rows.append(f"{index}.png,nodule,{runs(marked(), **variant) if index % 2 == 0 else ''},p{index},{split}")
    text(folder / "masks.csv", "\n".join(rows) + "\n")
    columns = {"path_column": "ImageId", "label_column": "ClassId", "mask_column": "EncodedPixels"}
    return {
        "name": "run_length_table",
        "table": str(folder / "masks.csv"),
        "images": str(folder / "films"),
        **columns,
    }


def label_table(folder: Path) -> Node:
    """A column for each label."""
    rows = ["path,patient,split,effusion,edema"]
    values = [("1", "0"), ("0", "1"), ("-1", ""), ("0", "0"), ("1", "1"), ("0", "0")]
    for index, (effusion, edema) in enumerate(values * 2):
        picture(folder / f"{index}.png", index)
        split = "train" if index < 6 else "val" if index < 8 else "test"
        rows.append(f"{index}.png,p{index},{split},{effusion},{edema}")
    text(folder / "labels.csv", "\n".join(rows) + "\n")
    return {"name": "label_table", "table": str(folder / "labels.csv"), "labels": ["effusion", "edema"]}


def ms_cxr(folder: Path) -> Node:
    """Sentences with one box, and one with two."""
    left, top, right, bottom = BOX
    rows = ["dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height,split"]
    for index, split in enumerate(("train", "train", "train", "val", "test")):
        place = f"files/p10/p1000003{index}/s5041426{index}/film-{index}.jpg"
        picture(folder / "mimic" / place, index)
        head, tail = f"film-{index},Pleural Effusion,", f"{WIDTH},{HEIGHT},{split}"
        phrase = "large right pleural effusion"
        rows.append(f"{head}{phrase},{place},{left},{top},{right - left},{bottom - top},{tail}")
    rows.append(
        f'film-0,Pneumonia,"multifocal opacities, bilateral",files/p10/p10000030/s50414260/film-0.jpg,1,1,5,5,{tail}'
    )
    rows.append(
        f'film-0,Pneumonia,"multifocal opacities, bilateral",files/p10/p10000030/s50414260/film-0.jpg,20,8,6,6,{tail}'
    )
    rows[-1], rows[-2] = rows[-1].replace(",test", ",train"), rows[-2].replace(",test", ",train")
    text(folder / "MS_CXR_Local_Alignment_v1.1.0.csv", "\n".join(rows) + "\n")
    return {
        "name": "ms_cxr",
        "table": str(folder / "MS_CXR_Local_Alignment_v1.1.0.csv"),
        "images": str(folder / "mimic"),
    }


def padchest_gr(folder: Path) -> Node:
    """Sentences with and without boxes, in shares of the image."""
    left, top, right, bottom = BOX
    box = [left / WIDTH, top / HEIGHT, right / WIDTH, bottom / HEIGHT]
    studies = []
    table = ["StudyID,ImageID,label,boxes_count,sentence_en,sentence_es,split,PatientID"]
    for index, split in enumerate(("train", "train", "train", "validation", "test", "test")):
        image_id = f"2168401113{index}_abc.png"
        picture(folder / "PadChest_GR" / image_id, index)
        effusion = {
            "sentence_en": "Right pleural effusion.",
            "sentence_es": "Derrame pleural derecho.",
            "abnormal": True,
            "boxes": [box],
            "extra_boxes": [],
            "labels": ["pleural effusion"],
            "locations": ["right"],
            "progression": None,
        }
        normal = {
            "sentence_en": "Heart size is normal.",
            "sentence_es": "Silueta cardiaca normal.",
            "abnormal": False,
            "boxes": [],
            "extra_boxes": [],
            "labels": ["Normal"],
            "locations": [],
            "progression": None,
        }
        findings = [effusion, normal] if index % 2 == 0 else [normal]
        studies.append({"StudyID": f"s{index}", "ImageID": image_id, "PreviousStudyID": None, "findings": findings})
        table += [f"s{index},{image_id},x,1,{f['sentence_en']},{f['sentence_es']},{split},p{index}" for f in findings]
    text(folder / "grounded_reports_20240819.json", json.dumps(studies))
    text(folder / "master_table.csv", "\n".join(table) + "\n")
    return {"name": "padchest_gr", "folder": str(folder)}


def slake(folder: Path) -> Node:
    """Questions in two languages, a label map with the names of its values, and boxes of what was detected."""
    left, top, right, bottom = BOX
    for split, first in (("train", 0), ("validation", 3), ("test", 5)):
        questions = []
        for index in range(first, first + (3 if split == "train" else 2)):
            place = folder / "imgs" / f"xmlab{index}"
            picture(place / "source.jpg", index)
            Image.fromarray(np.where(marked(), 2, 0).astype(np.uint8)).save(place / "mask.png")
            text(place / "detection.json", json.dumps([{"Liver": [left, top, right - left, bottom - top]}]))
            for lang, question, answer in (("en", "What is marked?", "Liver"), ("zh", "这是什么?", "肝")):
                item = {"img_id": index, "img_name": f"xmlab{index}/source.jpg", "question": question, "answer": answer}
                item |= {"q_lang": lang, "location": "Abdomen", "modality": "CT", "answer_type": "OPEN"}
                item |= {"base_type": "vqa", "content_type": "Organ", "triple": ["vhead", "_", "_"], "qid": index}
                questions.append(item)
        text(folder / f"{split}.json", json.dumps(questions))
    text(folder / "mask.txt", "1:Spleen\n2:Liver\n")
    return {"name": "slake", "folder": str(folder)}


def iu_xray(folder: Path) -> Node:
    """Two views a case."""
    content: dict[str, list[Node]] = {}
    for split in ("train", "val", "test"):
        content[split] = []
        for index in range(3):
            name = f"CXR{index}_IM-{split}"
            paths = [
                str(picture(folder / "images" / name / f"{view}.png", index).relative_to(folder / "images"))
                for view in (0, 1)
            ]
            report = "The heart is normal . No pleural effusion ." if index % 2 else "Left pleural effusion ."
            content[split].append({"id": name, "report": report, "image_path": paths, "split": split})
    text(folder / "annotation.json", json.dumps(content))
    return {"name": "iu_xray", "annotation": str(folder / "annotation.json"), "images": str(folder / "images")}


def chest_imagenome(folder: Path) -> Node:
    """Scene graphs with boxes in both spaces, sentences out of order, and one of an image that is not here."""
    splits: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for index in range(6):
        dicom_id = f"{index:08x}-0000"
        if index < 5:
            picture(folder / "mimic" / f"p{index}" / f"{dicom_id}.jpg", index)
        name = ("train", "train", "train", "valid", "test", "test")[index]
        splits[name].append(f"{index},1000{index},5000{index},{dicom_id},files/p{index}/{dicom_id}.dcm")
        objects = [
            {"object_id": f"{dicom_id}_right lung", "bbox_name": "right lung", "name": "Right lung", "synsets": []}
            | {"x1": 10, "y1": 10, "x2": 100, "y2": 100, "width": 90, "height": 90}
            | dict(zip(("original_x1", "original_y1", "original_x2", "original_y2"), BOX, strict=True)),
            {"object_id": f"{dicom_id}_svc", "bbox_name": "svc", "name": "Superior vena cava", "synsets": []}
            | {"x1": 1, "y1": 1, "x2": 9, "y2": 9, "width": 8, "height": 8}
            | {"original_x1": 1, "original_y1": 1, "original_x2": 9, "original_y2": 9},
        ]
        attributes = [
            {
                "right lung": True,
                "bbox_name": "right lung",
                "object_id": f"{dicom_id}_right lung",
                "attributes": [
                    ["anatomicalfinding|yes|lung opacity", "nlp|yes|abnormal"],
                    ["anatomicalfinding|no|pleural effusion"],
                ],
                "phrases": ["Opacity in the right\n lung.", "No effusion."],
                "phrase_IDs": [f"5000{index}|7", f"5000{index}|2"],
                "sections": ["finalreport", "finalreport"],
            }
        ]
        graph = {"image_id": dicom_id, "viewpoint": "PA", "patient_id": 1000 + index, "study_id": index}
        content = {**graph, "objects": objects, "attributes": attributes, "relationships": []}
        text(folder / "scene_graph" / f"{dicom_id}_SceneGraph.json", json.dumps(content))
    for name, rows in splits.items():
        head = ",subject_id,study_id,dicom_id,path"
        text(folder / "splits" / f"{name}.csv", "\n".join([head, *rows]) + "\n")
    return {
        "name": "chest_imagenome",
        "graphs": str(folder / "scene_graph"),
        "images": str(folder / "mimic"),
        "splits": str(folder / "splits"),
    }


def gemex_thinkvg(folder: Path) -> Node:
    """Rows of the parquet file as JSON Lines: a leading slash, reasoning with a box, an answer."""
    left, top, right, bottom = BOX
    rows = []
    for index in range(6):
        place = f"p10/p1000003{index}/s5041426{index}/film-{index}.jpg"
        picture(folder / "files" / place, index)
        response = (
            f"<think>First, look at the <ref>right lower lung zone</ref> <box>[{left}, {top}, {right}, {bottom}]</box>. "
            "It is opaque.</think> <answer>Pleural effusion</answer>"
        )
        row = {"image_path": f"/{place}", "question": "What is abnormal?", "question_type": "open_ended_questions"}
        rows.append(json.dumps({**row, "response": response}))
    text(folder / "train.jsonl", "\n".join(rows) + "\n")
    return {"name": "gemex_thinkvg", "file": str(folder / "train.jsonl"), "images": str(folder / "files")}


FORMS = {
    make.__name__: make
    for make in (
        mimic_cxr_jpg,
        vindr_cxr,
        rsna_pneumonia,
        siim_acr,
        chexmask,
        medmnist,
        mask_images,
        coco_instances,
        run_length_table,
        label_table,
        ms_cxr,
        padchest_gr,
        slake,
        iu_xray,
        chest_imagenome,
        gemex_thinkvg,
    )
}
